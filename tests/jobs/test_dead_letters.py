"""Dead letters to the end: what is parked is whole, says why, and can be looked at, given back and thrown away."""

from __future__ import annotations

import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

from nats_jobs import Job, JobDef, JobProcessor, Reject, dead_letters, job_processor
from nats_jobs.dead_letters import Failure, Header, _redrive
from nats_jobs.dead_letters._dead_letter import read_history, write_history
from nats_jobs.dead_letters._headers import publish_trimmed
from nats_jobs.dead_letters._store import DeadLetterStore
from nats_jobs.errors import ApiError, PublishRefused, SetupFailed, UsageError
from nats_jobs.events import DeadLettered, Error, Receive, Working
from nats_jobs.jetstream import Settlement
from nats_jobs.jobs import _parking
from nats_jobs.server import run_server
from nats_jobs.wire import connect
from support.dying_worker import MAX_DELIVER, definition, dying_worker
from support.jobs import LIMIT, Seen, in_stream, until, until_empty
from support.letters import hopeless, letters_of, park_jobs, pull_one, work_off
from support.settling import settle

pytestmark = pytest.mark.anyio

MAX_PAYLOAD = 16 * 1024


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


# Reading...


async def test_a_letter_says_which_job_it_was_why_and_since_when(url: str, name: str) -> None:
    start = datetime.now(UTC)
    await park_jobs(
        url,
        hopeless(name, lambda job: ValueError("no\nway")),
        ["x"],
        id="job-7",
        headers={"X-Mine": ["a", "b"]},
    )
    async with job_processor(url) as p:
        [letter] = await letters_of(p, name)
        assert await p.dead_letters.get(letter.sequence) == letter

    assert (letter.stream, letter.subject, letter.original_sequence) == (name, name, 1)
    assert (letter.consumer, letter.id) == (f"{name}Consumer", "job-7")
    assert (letter.reason, letter.error_type, letter.error) == ("exhausted", "ValueError", "no way")
    assert (letter.attempts, letter.redriven) == (1, 0)
    assert letter.enqueued_at is not None
    assert start - timedelta(seconds=1) < letter.enqueued_at <= letter.parked_at
    assert set(letter.headers) == {"X-Mine", "Content-Type"}
    assert letter.headers.get_all("X-Mine") == ["a", "b"]
    assert letter.payload() == "x"
    assert letter.history == (
        Failure(
            parked_at=letter.parked_at,
            reason="exhausted",
            attempts=1,
            error_type="ValueError",
            error="no way",
        ),
    )


async def test_letters_come_oldest_first_and_can_be_selected(url: str, name: str) -> None:
    fail = hopeless(name, lambda job: Reject("odd") if job.payload % 2 else ValueError("even"))
    await park_jobs(url, fail, [0, 1, 2, 3])
    async with job_processor(url) as p:
        letters = await letters_of(p, name)
        odd = await letters_of(p, name, reason="rejected")
        early = await letters_of(p, name, before=letters[2].parked_at)
        late = await letters_of(p, name, after=letters[0].sequence, limit=2)
        none = await letters_of(p, f"{name}_OTHER")
        counts = [
            await p.dead_letters.count(stream=name),
            await p.dead_letters.count(stream=name, reason="exhausted"),
            await p.dead_letters.count(stream=f"{name}_OTHER"),
        ]

    assert [letter.payload() for letter in letters] == [0, 1, 2, 3]
    assert [letter.payload() for letter in odd] == [1, 3]
    assert [letter.payload() for letter in early] == [0, 1]
    assert [letter.payload() for letter in late] == [1, 2]
    assert none == []
    assert counts == [4, 2, 0]


async def test_reading_ends_with_the_last_letter_that_was_there_when_it_began(url: str, name: str) -> None:
    await park_jobs(url, hopeless(name), ["first"])
    # A letter of others in between: where ours begin again is not where all do.
    await park_jobs(url, hopeless(f"{name}_OTHER"), ["other"])
    seen = []
    async with job_processor(url) as p:
        async for letter in p.dead_letters.browse(stream=name):
            seen.append(letter.payload())
            await park_jobs(url, hopeless(name), ["later"])

    assert seen == ["first"]


async def test_what_a_foreign_client_put_there_can_be_read(url: str, name: str) -> None:
    await park_jobs(url, hopeless(name), ["ours"])
    strange = {
        Header.ATTEMPTS: "many",
        Header.SEQUENCE: "9" * 40,
        Header.ENQUEUED_AT: "yesterday",
        Header.HISTORY: '{"a": 1}',
    }
    async with job_processor(url) as p:
        await p.connection.request(f"dead_letters.{name}.a.b", b"plain")
        await p.connection.request(f"dead_letters.{name}.a.b", b"strange", headers=strange)
        _, plain, odd = await letters_of(p, name)

    assert (plain.stream, plain.subject, plain.reason, plain.data) == (name, "a.b", "unknown", b"plain")
    assert (odd.attempts, odd.original_sequence, odd.enqueued_at, len(odd.history)) == (0, 0, None, 1)


async def test_without_the_stream_there_are_no_letters() -> None:
    async with run_server() as server, job_processor(server.url) as p:
        assert [letter async for letter in p.dead_letters.browse()] == []
        assert await p.dead_letters.count() == await p.dead_letters.purge() == 0
        assert (await p.dead_letters.redrive_many()).redriven == 0
        for call in (p.dead_letters.get, p.dead_letters.redrive, p.dead_letters.remove):
            with pytest.raises(UsageError, match="no dead letter 1"):
                await call(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stream": "A.B"},
        {"stream": ""},
        {"reason": ""},
        {"before": datetime(2026, 1, 1)},
        {"before": "yesterday"},
        {"limit": 0},
        {"rate": 0},
        {"rate": "fast"},
    ],
)
async def test_a_selection_that_cannot_work_is_refused(url: str, wrong: dict[str, Any]) -> None:
    async with job_processor(url) as p:
        with pytest.raises(UsageError, match=next(iter(wrong))):
            await p.dead_letters.redrive_many(**wrong)


# Giving back...


@pytest.mark.smoke
async def test_a_redriven_job_is_performed_as_it_was_enqueued_and_its_letter_is_gone(
    url: str, name: str
) -> None:
    performed: list[Job[Any]] = []

    async def perform(job: Job[Any]) -> None:
        performed.append(job)

    await park_jobs(url, hopeless(name), ["x"], id="job-7", headers={"X-Mine": ["a", "b"]})
    async with job_processor(url) as p:
        [letter] = await letters_of(p, name)
        ack = await p.dead_letters.redrive(letter.sequence)
        assert (ack.stream, ack.sequence, ack.duplicate) == (name, 2, False)
        assert await letters_of(p, name) == []
        await p.start(JobDef(stream=name, perform=perform))
        await until_empty(p.js, name)
        await p.stop()

    [job] = performed
    assert (job.payload, job.attempt) == ("x", 1)
    assert job.headers.get_all("X-Mine") == ["a", "b"]
    assert job.headers[Header.ORIGINAL_ID] == "job-7"
    assert job.headers[Header.REDRIVEN] == "1"


async def test_redriving_after_a_crash_before_the_removal_does_not_make_a_second_job(
    name: str, tmp_path: Path
) -> None:
    """The crash: a user who may publish but may not remove."""
    config = """
        accounts { A { jetstream: enabled, users: [
            { user: all, password: p }
            { user: some, password: p, permissions { publish { deny: "$JS.API.STREAM.MSG.DELETE.>" } } }
        ] } }
    """
    async with run_server(config=config) as server:
        host = server.url.removeprefix("nats://").rpartition("@")[2]
        full, limited = (f"nats://{user}:p@{host}" for user in ("all", "some"))
        await park_jobs(full, hopeless(name), ["x"])
        async with job_processor(limited) as p:
            [letter] = await letters_of(p, name)
            with pytest.raises(Exception, match=r"STREAM\.MSG\.DELETE"):
                await p.dead_letters.redrive(letter.sequence)

        async with job_processor(full) as p:
            assert await in_stream(p.js, name) == 1
            assert await letters_of(p, name) == [letter]
            assert (await p.dead_letters.redrive(letter.sequence)).duplicate
            assert await in_stream(p.js, name) == 1
            assert await letters_of(p, name) == []


async def test_redriving_that_is_cancelled_after_the_job_is_stored_removes_the_letter(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled_then(*args: Any, **options: Any) -> Any:
        ack = await publish_trimmed(*args, **options)
        scope.cancel()
        return ack

    remove = DeadLetterStore.remove

    async def remove_later(*args: Any) -> bool:
        await anyio.sleep(0.05)
        return await remove(*args)

    await park_jobs(url, hopeless(name), ["x"])
    monkeypatch.setattr(_redrive, "publish_trimmed", cancelled_then)
    monkeypatch.setattr(DeadLetterStore, "remove", remove_later)
    async with job_processor(url) as p:
        [letter] = await letters_of(p, name)
        with anyio.CancelScope() as scope:
            await p.dead_letters.redrive(letter.sequence)

        assert scope.cancel_called
        assert await in_stream(p.js, name) == 1
        assert await letters_of(p, name) == []


async def test_two_who_redrive_the_same_letter_make_one_job(url: str, name: str) -> None:
    await park_jobs(url, hopeless(name), range(5))
    async with job_processor(url) as one, job_processor(url) as other, anyio.create_task_group() as group:
        for p in (one, other):

            async def redrive_all(p: JobProcessor = p) -> None:
                await p.dead_letters.redrive_many(stream=name)

            group.start_soon(redrive_all)

    async with job_processor(url) as p:
        assert await in_stream(p.js, name) == 5
        assert await letters_of(p, name) == []


async def test_a_letter_shows_every_round_it_was_parked_in(url: str, name: str) -> None:
    await park_jobs(url, hopeless(name, lambda job: ValueError("first")), ["x"], id="job-7")
    async with job_processor(url) as p:
        for failure in (Reject("second\r\nround"), KeyError("third")):
            [letter] = await letters_of(p, name)
            await p.dead_letters.redrive(letter.sequence)
            await work_off(url, hopeless(name, lambda job, failure=failure: failure))  # type: ignore[misc]

        [letter] = await letters_of(p, name)

    assert [(entry.reason, entry.error_type, entry.error) for entry in letter.history] == [
        ("exhausted", "ValueError", "first"),
        ("rejected", "Reject", "second round"),
        ("exhausted", "KeyError", "'third'"),
    ]
    moments = [entry.parked_at for entry in letter.history]
    assert moments == sorted(moments)
    assert (letter.redriven, letter.id, letter.original_sequence) == (2, "job-7", 3)
    assert set(letter.headers) == {"Content-Type"}


async def test_a_job_parked_again_without_being_performed_comes_with_its_history(url: str, name: str) -> None:
    """A delayed job, whose wait is over, has no attempt more for it when it is redriven."""
    await park_jobs(url, hopeless(name, lambda job: ValueError("first")), ["x"], delay=0.1)
    async with job_processor(url) as p:
        [letter] = await letters_of(p, name)
        assert letter.attempts == 2
        await p.dead_letters.redrive(letter.sequence)
        await work_off(url, hopeless(name, lambda job: ValueError("second")))
        [letter] = await letters_of(p, name)

    assert [(entry.attempts, entry.error) for entry in letter.history] == [(2, "first"), (1, "second")]


async def test_a_history_is_bounded_and_keeps_the_newest() -> None:
    rounds = [
        Failure(
            parked_at=datetime.now(UTC),
            reason="exhausted",
            attempts=n,
            error_type="E",
            error="\U0001f4a5" * 5000,
        )
        for n in range(50)
    ]
    for entries in (rounds, rounds[-1:]):
        text = write_history(entries)
        assert text.isascii()
        assert len(text) <= 8192
        kept = read_history(text)
        assert kept
        assert [entry.attempts for entry in kept] == list(range(50))[-len(kept) :]

    short = [
        Failure(parked_at=rounds[0].parked_at, reason="rejected", attempts=1, error_type="E", error="no")
    ] * 50
    assert read_history(write_history(short)) == tuple(short[:20])


async def test_a_letter_whose_stream_is_gone_or_takes_it_no_more_is_kept_and_says_so(
    url: str, name: str
) -> None:
    await park_jobs(url, hopeless(name), ["x"])
    async with job_processor(url) as p:
        [letter] = await letters_of(p, name)
        elsewhere = StreamConfig(
            name=name, subjects=[f"{name}.elsewhere"], retention=RetentionPolicy.WORK_QUEUE
        )
        await p.js.update_stream(elsewhere)
        with pytest.raises(PublishRefused, match=f"{name}.* does not take this subject any more.*is kept"):
            await p.dead_letters.redrive(letter.sequence)

        await p.js.delete_stream(name)
        with pytest.raises(PublishRefused, match=f"{name}.* does not exist any more.*is kept"):
            await p.dead_letters.redrive(letter.sequence)

        assert await letters_of(p, name) == [letter]


async def test_what_cannot_be_redriven_does_not_hold_up_the_others() -> None:
    async with run_server() as server:
        await park_jobs(server.url, hopeless("GONE"), range(2))
        await park_jobs(server.url, hopeless("HERE"), range(3))
        async with job_processor(server.url) as p:
            await p.js.delete_stream("GONE")
            outcome = await p.dead_letters.redrive_many()
            assert (outcome.redriven, outcome.kept, sorted(outcome.failures)) == (3, 2, [1, 2])
            assert all("GONE" in str(failure) for failure in outcome.failures.values())
            assert [letter.stream async for letter in p.dead_letters.browse()] == ["GONE"] * 2
            assert await in_stream(p.js, "HERE") == 3


async def test_only_what_is_selected_is_redriven(url: str, name: str) -> None:
    fail = hopeless(name, lambda job: Reject("odd") if job.payload % 2 else ValueError("even"))
    await park_jobs(url, fail, range(6))
    async with job_processor(url) as p:
        letters = await letters_of(p, name)
        options: dict[str, Any] = {"stream": name, "reason": "rejected", "before": letters[5].parked_at}
        outcome = await p.dead_letters.redrive_many(**options, limit=1)
        assert (outcome.redriven, outcome.kept) == (1, 0)
        assert (await p.dead_letters.redrive_many(**options)).redriven == 1
        assert [letter.payload() for letter in await letters_of(p, name)] == [0, 2, 4, 5]


async def test_jobs_that_fail_again_are_not_redriven_again_by_the_same_call(url: str, name: str) -> None:
    await park_jobs(url, hopeless(name), range(5))
    async with job_processor(url) as p:
        await p.start(hopeless(name))
        with anyio.fail_after(LIMIT):
            outcome = await p.dead_letters.redrive_many(stream=name, rate=20)

        await until_empty(p.js, name)
        letters = await letters_of(p, name)
        await p.stop()

    assert outcome.redriven == 5
    assert [letter.redriven for letter in letters] == [1] * 5


async def test_redriving_goes_no_faster_than_its_rate(url: str, name: str) -> None:
    await park_jobs(url, hopeless(name), range(4))
    async with job_processor(url) as p:
        start = anyio.current_time()
        await p.dead_letters.redrive_many(stream=name, rate=10)
        assert anyio.current_time() - start >= 0.3


async def test_where_nothing_can_be_removed_nothing_is_redriven_and_the_refusal_is_told() -> None:
    async with run_server() as server:
        await park_jobs(server.url, hopeless("JOBS"), ["x"])
        async with job_processor(server.url) as p:
            config = {**dead_letters.stream_config(), "deny_delete": True, "deny_purge": True}
            await p.js.update_stream(StreamConfig(**config))  # type: ignore[arg-type]
            for redriving in (p.dead_letters.redrive(1), p.dead_letters.redrive_many()):
                with pytest.raises(UsageError, match="deny_delete"):
                    await redriving

            with pytest.raises(ApiError, match="purge not permitted"):
                await p.dead_letters.purge()

            with pytest.raises(ApiError, match="delete not permitted"):
                await p.dead_letters.remove(1)

            assert await in_stream(p.js, "JOBS") == 0
            assert await p.dead_letters.count() == 1


# Throwing away...


async def test_only_what_is_selected_is_thrown_away() -> None:
    fail = hopeless("JOBS", lambda job: Reject("odd") if job.payload % 2 else ValueError("even"))
    async with run_server() as server:
        await park_jobs(server.url, fail, range(6))
        await park_jobs(server.url, hopeless("OTHERS"), range(2))
        async with job_processor(server.url) as p:
            letters = await letters_of(p, "JOBS")
            await p.dead_letters.remove(letters[0].sequence)
            with pytest.raises(UsageError, match="no dead letter 1"):
                await p.dead_letters.remove(letters[0].sequence)

            assert (
                await p.dead_letters.purge(stream="JOBS", reason="rejected", before=letters[5].parked_at) == 2
            )
            assert [letter.payload() for letter in await letters_of(p, "JOBS")] == [2, 4, 5]
            assert await p.dead_letters.purge(stream="JOBS") == 3
            assert [letter.stream async for letter in p.dead_letters.browse()] == ["OTHERS"] * 2
            assert await p.dead_letters.purge() == 2
            assert await p.dead_letters.count() == 0


# Parking...


async def test_parking_a_delivery_twice_stores_one_letter(url: str, name: str) -> None:
    await park_jobs(url, hopeless(name), [])
    async with job_processor(url) as p:
        await p.js.delete_consumer(name, f"{name}Consumer")
        await p.enqueue(name, "x")
        delivery = await pull_one(p, name)
        for _ in range(2):
            await dead_letters.park(p.api, delivery, "rejected", Reject("no"))

        assert await p.dead_letters.count(stream=name) == 1


async def test_parking_a_later_delivery_of_the_same_job_stores_no_second_letter(url: str, name: str) -> None:
    """Whoever parked it first has died before it could end the original."""
    await park_jobs(url, hopeless(name), [])
    async with job_processor(url) as p:
        await p.js.delete_consumer(name, f"{name}Consumer")
        await p.enqueue(name, "x")
        for attempt in (1, 2):
            delivery = await pull_one(p, name)
            assert delivery.attempt == attempt
            await dead_letters.park(p.api, delivery, "rejected", Reject("no"))
            await settle(delivery, Settlement.nak())

        [letter] = await letters_of(p, name)
        assert letter.attempts == 1
        stored = await p.js.get_msg(dead_letters.STREAM, letter.sequence)
        assert stored.headers is not None
        assert stored.headers["Nats-Msg-Id"] == f"{name}:{delivery.sequence}"


async def test_a_stream_made_anew_does_not_hide_the_letters_of_its_jobs(url: str, name: str) -> None:
    """Its sequences begin at 1 again, while the ids of its first life are still remembered."""
    async with job_processor(url) as p:
        for payload in ("first life", "second life"):
            await park_jobs(url, hopeless(name), [payload])
            await p.js.delete_stream(name)

        letters = await letters_of(p, name)

    assert [(letter.original_sequence, letter.payload()) for letter in letters] == [
        (1, "first life"),
        (1, "second life"),
    ]


async def test_a_stream_made_anew_does_not_hide_them_either_when_the_first_letters_were_removed(
    url: str, name: str
) -> None:
    async with job_processor(url) as p:
        await park_jobs(url, hopeless(name), ["first life"])
        await p.js.delete_stream(name)
        assert await p.dead_letters.purge(stream=name) == 1
        await park_jobs(url, hopeless(name), ["second life"])
        assert [letter.payload() for letter in await letters_of(p, name)] == ["second life"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("\ud800 \udc80 lone\x85\u2028breaks\r\n\tand blanks "), "? ? lone breaks and blanks"),
        (ValueError("x" * 100_000), "x" * 2000),
        (ValueError("\U0001f4a5" * 100_000), "\U0001f4a5" * 2000),
        (ValueError(), ""),
        (Mute(), "its text cannot be had: RuntimeError"),
        (ValueError(b"bytes", 7), "(b'bytes', 7)"),
    ],
    ids=["marks", "long", "wide", "empty", "mute", "values"],
)
async def test_the_text_of_any_error_fits_into_a_header(
    url: str, name: str, error: Exception, text: str
) -> None:
    await park_jobs(url, hopeless(name), [])
    async with job_processor(url) as p:
        await p.js.delete_consumer(name, f"{name}Consumer")
        await p.enqueue(name, "x")
        await dead_letters.park(p.api, await pull_one(p, name), "exhausted", error)
        [letter] = await letters_of(p, name)

    assert (letter.error, letter.error_type) == (text, type(error).__qualname__)
    assert letter.payload() == "x"


async def test_headers_of_any_client_come_along_but_not_those_that_instruct_the_server(
    url: str, name: str
) -> None:
    block = (
        b"NATS/1.0\r\nOdd Name: 1\r\nX-Latin: \xe4\r\nStatus: 200\r\nDescription: mine\r\n"
        b"Nats-Expected-Last-Sequence: 0\r\nNats-Msg-Id: their-id\r\n\r\n"
    )
    await park_jobs(url, hopeless(name), [])
    async with job_processor(url) as p:
        await p.connection.request(name, b"x", headers=block)
        await work_off(url, hopeless(name))
        [letter] = await letters_of(p, name)
        raw = await p.js.get_msg(dead_letters.STREAM, letter.sequence)
        await p.dead_letters.redrive(letter.sequence)
        await work_off(url, hopeless(name))
        [again] = await letters_of(p, name)

    assert raw.headers is not None
    assert not [key for key in raw.headers if key.startswith("Nats-Expected-Last")]
    expected = {"Odd Name": "1", "X-Latin": "\udce4", "Status": "200", "Description": "mine"}
    assert dict(letter.headers) == dict(again.headers) == expected
    assert letter.id == again.id == "their-id"


@pytest.mark.parametrize("room", [0, 20, 100, 150, 300, 500, 700, 1000, 3000])
async def test_a_job_as_large_as_the_server_takes_is_parked_whole_and_redriven_whole(room: int) -> None:
    """`room` is what the job leaves of max_payload."""
    error = "e" * 5000
    async with run_server(config=f"max_payload: {MAX_PAYLOAD}") as server:
        await park_jobs(server.url, hopeless("JOBS"), [])
        async with connect(server.url) as outside:
            size = MAX_PAYLOAD - room
            headers = b"NATS/1.0\r\nX-Mine: kept\r\n\r\n"
            await outside.request("JOBS", b"x" * size)
            await outside.request("JOBS", b"y" * (size - len(headers)), headers=headers)

        async with job_processor(server.url) as p:
            for times in range(2):
                await work_off(server.url, hopeless("JOBS", lambda job: ValueError(error)))
                letters = await letters_of(p, "JOBS")
                assert [letter.data[:1] * size for letter in letters] == [b"x" * size, b"y" * size]
                assert [len(letter.data) for letter in letters] == [size, size - len(headers)]
                assert [dict(letter.headers) for letter in letters] == [{}, {"X-Mine": "kept"}]
                assert [letter.subject for letter in letters] == ["JOBS"] * 2
                if room >= 150:
                    assert [letter.reason for letter in letters] == ["exhausted"] * 2

                if room >= 700:
                    assert [letter.redriven for letter in letters] == [times] * 2
                    assert {len(letter.error) for letter in letters} <= {200, 2000}

                assert (await p.dead_letters.redrive_many()).redriven == 2

            assert await in_stream(p.js, "JOBS") == 2


@pytest.mark.parametrize("room", [100, 500, 1000, 4000])
async def test_a_job_with_as_many_headers_as_jetstream_takes_keeps_them(
    url: str, name: str, room: int
) -> None:
    large = "h" * (64 * 1024 - room)
    await park_jobs(url, hopeless(name), [])
    async with job_processor(url) as p:
        for _ in range(2):
            await p.connection.request(name, b"x", headers={"X-Large": large})

        await work_off(url, hopeless(name, lambda job: ValueError("e" * 5000)))
        for _ in range(2):
            letters = await letters_of(p, name)
            assert [dict(letter.headers) for letter in letters] == [{"X-Large": large}] * 2
            assert (await p.dead_letters.redrive_many(stream=name)).redriven == 2
            await work_off(url, hopeless(name, lambda job: ValueError("e" * 5000)))


async def test_a_stream_of_dead_letters_that_limits_the_size_has_the_job_without_what_we_say() -> None:
    async with run_server() as server, job_processor(server.url) as p:
        config: Any = {**dead_letters.stream_config(), "max_msg_size": 1000}
        await p.js.add_stream(StreamConfig(**config))
        await park_jobs(server.url, hopeless("JOBS"), [])
        await p.connection.request("JOBS", b"x" * 900)
        await work_off(server.url, hopeless("JOBS"))
        [letter] = await letters_of(p, "JOBS")

    assert (letter.reason, letter.error, len(letter.data)) == ("rejected", "", 900)


async def test_a_stream_of_dead_letters_deleted_while_we_work_is_made_again() -> None:
    async with run_server() as server, job_processor(server.url) as p:
        defn = hopeless("JOBS")
        await p.start(defn)
        await p.js.delete_stream(dead_letters.STREAM)
        await p.enqueue(defn, "x")
        await until_empty(p.js, "JOBS")
        assert [letter.payload() for letter in await letters_of(p, "JOBS")] == ["x"]
        await p.stop()


@pytest.mark.parametrize("auto_extend", [True, False])
async def test_parking_is_repeated_until_it_succeeds_and_the_handler_is_not(
    monkeypatch: pytest.MonkeyPatch, auto_extend: bool
) -> None:
    monkeypatch.setattr(_parking, "_MAX_RETRY_INTERVAL", 0.1)
    seen = Seen()
    full: Any = {**dead_letters.stream_config(), "discard": "new", "max_msgs": 1}
    async with run_server() as server, job_processor(server.url, on_event=seen) as p:
        await p.js.add_stream(StreamConfig(**full))
        await p.js.publish("dead_letters.OTHERS.x", b"")
        short = replace(
            hopeless("JOBS"),
            auto_extend_ack_timeout=auto_extend,
            consumer_config=ConsumerConfig(ack_wait=1.0),
        )
        await p.start(short)
        await p.enqueue(short, "x")
        await until(lambda: len(seen.of(Working)) > 5)
        assert await in_stream(p.js, "JOBS") == 1
        assert [event.attempt for event in seen.of(Receive)] == [1]
        assert not seen.of(DeadLettered)
        await p.dead_letters.purge()
        await until_empty(p.js, "JOBS")
        assert [letter.payload() for letter in await letters_of(p, "JOBS")] == ["x"]
        await p.stop()


async def test_a_stop_does_not_wait_for_parking_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    full: Any = {**dead_letters.stream_config(), "discard": "new", "max_msgs": 1}
    async with run_server() as server, job_processor(server.url) as p:
        await p.js.add_stream(StreamConfig(**full))
        await p.js.publish("dead_letters.OTHERS.x", b"")
        defn = hopeless("JOBS")
        await p.start(defn)
        await p.enqueue(defn, "x")
        await until(lambda: "could not be stored in DEAD_LETTERS" in caplog.text)
        with anyio.fail_after(LIMIT):
            await p.stop(grace=0)

        assert await in_stream(p.js, "JOBS") == 1


async def test_a_job_whose_parking_takes_too_long_is_kept(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    async def never(*args: Any) -> None:
        tries.append(args)
        await anyio.sleep_forever()

    seen = Seen()
    monkeypatch.setattr(_parking, "_STORE_TIMEOUT", 0.1)
    monkeypatch.setattr(_parking, "_MAX_RETRY_INTERVAL", 0.1)
    async with job_processor(url, on_event=seen) as p:
        defn = hopeless(name)
        await p.start(defn)
        with monkeypatch.context() as patched:
            patched.setattr(dead_letters, "park", never)
            await p.enqueue(defn, "x")
            await until(lambda: len(tries) > 1)

        await until_empty(p.js, name)
        assert [event.attempt for event in seen.of(Receive)] == [1]
        assert [letter.payload() for letter in await letters_of(p, name)] == ["x"]
        await p.stop()


async def test_a_job_that_is_being_parked_when_all_is_cancelled_is_parked_to_the_end(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a job that was rejected would be performed once more."""
    parking, cancelled = anyio.Event(), anyio.Event()
    park = dead_letters.park

    async def slowly(*args: Any) -> None:
        parking.set()
        await cancelled.wait()
        await park(*args)

    monkeypatch.setattr(dead_letters, "park", slowly)
    seen = Seen()
    defn = hopeless(name)

    async def work() -> None:
        with scope:
            async with job_processor(url, on_event=seen) as p:
                await p.start(defn)
                await p.enqueue(defn, "x")

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        with anyio.fail_after(LIMIT):
            await parking.wait()

        scope.cancel()
        await anyio.sleep(0.1)
        cancelled.set()

    assert len(seen.of(DeadLettered)) == 1
    async with job_processor(url) as p:
        assert await in_stream(p.js, name) == 0
        assert [letter.payload() for letter in await letters_of(p, name)] == ["x"]


async def test_a_stream_of_dead_letters_with_settings_of_the_operator_is_used_as_it_is() -> None:
    async with run_server() as server, job_processor(server.url) as p:
        config = {
            "storage": "memory",
            "max_age": 3600,
            "max_msgs": 1000,
            "description": "the operator's",
            "allow_direct": True,
        }
        theirs: Any = {**dead_letters.stream_config(), **config}
        await p.js.add_stream(StreamConfig(**theirs))
        await park_jobs(server.url, hopeless("JOBS"), ["x"])
        [letter] = await letters_of(p, "JOBS")
        await p.dead_letters.redrive(letter.sequence)
        kept = (await p.js.stream_info(dead_letters.STREAM)).config

    assert {field: getattr(kept, field) for field in config} == config


async def test_a_stream_that_has_our_subjects_is_named_as_the_trouble() -> None:
    async with run_server() as server, job_processor(server.url) as p:
        await p.js.add_stream(name="OPS", subjects=["dead_letters.>"])
        with pytest.raises(SetupFailed, match=r"DEAD_LETTERS.*overlap"):
            await p.start(hopeless("JOBS"))


# Crash loops...


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_job_of_which_workers_die_is_parked_and_the_others_go_on(
    url: str, name: str, tmp_path: Path, backend: str
) -> None:
    """As under a supervisor: a worker that has died is started again."""
    ledger = tmp_path / "ledger"
    ledger.touch()
    defn = definition(name, ledger)
    jobs = [f"job {number}" for number in range(20)]
    deaths = 0
    async with job_processor(url) as p:
        await park_jobs(url, defn, [])
        for payload in ["poison", *jobs]:
            await p.enqueue(defn, payload)

        async def letters() -> int:
            return await p.dead_letters.count(stream=name)

        while not await letters():
            with dying_worker(url, name, ledger, backend) as worker:

                async def ended(worker: Any = worker) -> bool:
                    return worker.poll() is not None or bool(await letters())

                await until(ended)
                deaths += worker.poll() == -signal.SIGKILL
                if worker.poll() is None:
                    await until_empty(p.js, name)

        await until_empty(p.js, name)
        [letter] = await letters_of(p, name)

    assert (letter.reason, letter.attempts, letter.payload()) == ("crash-loop", MAX_DELIVER, "poison")
    assert "4 times" in letter.error
    performed = ledger.read_text().splitlines()
    # The last delivery is parked without being performed.
    assert 1 <= performed.count("poison") == deaths < MAX_DELIVER
    assert set(performed) == {"poison", *jobs}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_others_do_not_wait_until_the_one_is_parked(url: str, name: str, tmp_path: Path) -> None:
    """Here its next delivery is further away than the end of the test."""
    ledger = tmp_path / "ledger"
    ledger.touch()
    ack_wait = 3 * LIMIT
    defn = definition(name, ledger, ack_wait)
    async with job_processor(url) as p:
        await park_jobs(url, defn, [])
        for payload in ("poison", "job"):
            await p.enqueue(defn, payload)

        for payload in ("poison", "job"):
            with dying_worker(url, name, ledger, "asyncio", ack_wait):
                await until(lambda payload=payload: payload in ledger.read_text().splitlines())  # type: ignore[misc]

        assert ledger.read_text().splitlines() == ["poison", "job"]
        assert await p.dead_letters.count(stream=name) == 0


async def test_a_job_that_fails_past_its_max_age_is_not_announced_again_but_parked(
    url: str, name: str
) -> None:
    """The stream has removed it, so no other attempt would come."""
    seen = Seen()
    handled = 0
    age = 1.0

    async def outlive(job: Job[str]) -> None:
        nonlocal handled
        handled += 1
        while await job.processor.api.get_message(name, {"seq": job.sequence}) is not None:
            await anyio.sleep(0.1)

        # The clock here is that of the server: the same machine.
        raise ValueError("too late")

    config = StreamConfig(max_age=age, duplicate_window=age)
    defn = JobDef[str](stream=name, perform=outlive, stream_config=config, backoff=0.01)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, "x")
        await until(lambda: seen.of(DeadLettered))
        await p.stop()

    assert handled == 1
    assert [(event.attempts_exhausted, event.backoff) for event in seen.of(Error)] == [(True, None)]
    assert [event.reason for event in seen.of(DeadLettered)] == ["expired"]
