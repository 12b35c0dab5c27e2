"""Enqueueing: where a job goes, what is refused before a byte is sent, and what a confirmation means."""

from __future__ import annotations

import gc
import math
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from nats.js.api import ConsumerConfig, DiscardPolicy, StreamConfig

from nats_jobs import Enqueued, Job, JobDef, JobProcessor, codecs, job_processor
from nats_jobs.errors import (
    BadSubject,
    EncodeError,
    EnqueueFailed,
    NatsJobsError,
    NotConfirmed,
    PayloadTooLarge,
    PublishRefused,
    UsageError,
)
from nats_jobs.jetstream import _pub_ack, _publish_many, _retrying
from nats_jobs.jetstream._pub_ack import parse_pub_ack
from nats_jobs.server import run_server
from nats_jobs.wire import Msg, connect
from support.jobs import LIMIT, in_stream, until, until_empty

pytestmark = pytest.mark.anyio


async def perform(job: Job[Any]) -> None: ...


def defined(stream: str, **fields: Any) -> JobDef[Any]:
    return JobDef(stream=stream, perform=perform, **fields)


@asynccontextmanager
async def producer(url: str, name: str, **config: Any) -> AsyncIterator[JobProcessor]:
    """A processor that only enqueues, and a stream `name`."""
    async with job_processor(url) as p:
        config.setdefault("subjects", [name, f"{name}.>"])
        await p.js.add_stream(StreamConfig(name=name, **config))
        yield p


async def stored(p: JobProcessor, stream: str, sequence: int) -> Any:
    return await p.js.get_msg(stream, sequence)


# Where it goes...


async def test_a_job_for_a_definition_goes_to_the_subject_of_its_stream(url: str, name: str) -> None:
    async with producer(url, name) as p:
        assert await p.enqueue(defined(name), {"a": 1}) == Enqueued(name, 1, duplicate=False)
        message = await stored(p, name, 1)

    assert message.subject == name
    assert message.data == codecs.MSGPACK.encode({"a": 1})
    assert message.headers["Content-Type"] == codecs.MSGPACK.content_type
    assert message.headers["Nats-Expected-Stream"] == name
    assert message.headers["Nats-Msg-Id"]


async def test_a_job_for_a_subject_is_encoded_as_msgpack(url: str, name: str) -> None:
    async with producer(url, name) as p:
        assert await p.enqueue(f"{name}.mail", [1, None]) == Enqueued(name, 1, duplicate=False)
        message = await stored(p, name, 1)

    assert message.subject == f"{name}.mail"
    assert message.data == codecs.MSGPACK.encode([1, None])
    assert "Nats-Expected-Stream" not in message.headers


async def test_the_codec_of_a_definition_encodes_and_labels(url: str, name: str) -> None:
    async with producer(url, name) as p:
        await p.enqueue(defined(name, codec=codecs.JSON), {"a": "ä"})
        message = await stored(p, name, 1)

    assert codecs.JSON.decode(message.data) == {"a": "ä"}
    assert message.headers["Content-Type"] == codecs.JSON.content_type


@pytest.mark.parametrize(
    ("fields", "tail"),
    [
        ({"filter_subject": "{}.a"}, ".a"),
        ({"consumer_config": ConsumerConfig(filter_subject="{}.b")}, ".b"),
        ({"consumer_config": ConsumerConfig(filter_subjects=["{}.*", "{}.c"])}, ".c"),
        ({"stream_config": StreamConfig(subjects=["{}.>", "{}.d", "{}.e"])}, ".d"),
        ({}, ""),
    ],
)
async def test_the_subject_is_the_filters_else_the_first_plain_one_of_the_stream(
    url: str, name: str, fields: dict[str, Any], tail: str
) -> None:
    fields = {field: _named(value, name) for field, value in fields.items()}
    async with producer(url, name) as p:
        await p.enqueue(defined(name, **fields), 1)
        assert (await stored(p, name, 1)).subject == name + tail


def _named(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.format(name)

    if isinstance(value, list):
        return [_named(entry, name) for entry in value]

    if isinstance(value, StreamConfig | ConsumerConfig):
        return value.evolve(
            **{k: _named(v, name) for k, v in vars(value).items() if isinstance(v, str | list)}
        )

    return value


@pytest.mark.parametrize("filter_subject", ["X.*", "X.>"])
async def test_a_wildcard_needs_the_subject_to_be_said(url: str, name: str, filter_subject: str) -> None:
    defn = defined(name, filter_subject=filter_subject.replace("X", name))
    async with producer(url, name) as p:
        with pytest.raises(UsageError, match="subject="):
            await p.enqueue(defn, 1)

        with pytest.raises(UsageError, match="subject="):
            await p.enqueue_many(defn, [1, 2])

        await p.enqueue(defn, 1, subject=f"{name}.a")
        await p.enqueue_many(defn, [2], subject=f"{name}.b")
        assert (await stored(p, name, 1)).subject == f"{name}.a"
        assert (await stored(p, name, 2)).subject == f"{name}.b"


async def test_headers_go_with_the_job_and_may_repeat(url: str, name: str) -> None:
    got: list[Any] = []

    async def keep(job: Job[Any]) -> None:
        got.append((job.payload, job.headers.get_all("X-Tag"), job.headers["X-One"], "X-Two" in job.headers))

    defn = JobDef[Any](stream=name, perform=keep)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, "text", headers={"X-Tag": ["a", "b"], "X-One": "ä\r\nX-Two: injected"})
        await until_empty(p.js, name)
        await p.stop()

    assert got == [("text", ["a", "b"], "ä X-Two: injected", False)]


async def test_a_header_of_the_user_wins_over_ours(url: str, name: str) -> None:
    async with producer(url, name) as p:
        await p.enqueue(name, 1, headers={"Content-Type": "application/x-mine"})
        assert (await stored(p, name, 1)).headers["Content-Type"] == "application/x-mine"


@pytest.mark.parametrize("label", ["application/json", "Application/JSON; x=1", "text/plain"])
@pytest.mark.parametrize("header", ["Content-Type", "content-type"])
async def test_a_label_by_which_no_worker_could_decode_the_payload_is_refused(
    url: str, name: str, header: str, label: str
) -> None:
    async with producer(url, name) as p:
        with pytest.raises(UsageError, match="no worker could decode it"):
            await p.enqueue(name, {"a": 1}, headers={header: label})

        with pytest.raises(UsageError, match="no worker could decode it"):
            await p.enqueue_many(name, [{"a": 1}], headers={header: label})

        assert await in_stream(p.js, name) == 0


async def test_bytes_that_are_sent_as_they_are_may_be_labelled_as_what_they_are(url: str, name: str) -> None:
    got: list[Any] = []

    async def keep(job: Job[Any]) -> None:
        got.append(job.payload)

    defn = JobDef(stream=name, perform=keep, codec=codecs.RAW)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, b'{"a": 1}', headers={"Content-Type": "application/json"})
        await until_empty(p.js, name)
        await p.stop()

    assert got == [{"a": 1}]


async def test_enqueueing_in_another_thread_is_refused_at_once(url: str, name: str) -> None:
    """Its event loop would never hear of a confirmation."""
    async with producer(url, name) as p:

        def elsewhere() -> None:
            for call in (lambda: p.enqueue(name, 1), lambda: p.enqueue_many(name, [1])):
                with pytest.raises(UsageError, match="another thread than the processor's"):
                    anyio.run(call)

            anyio.from_thread.run(p.enqueue, name, 2)

        with anyio.fail_after(LIMIT):
            await anyio.to_thread.run_sync(elsewhere)

        assert await in_stream(p.js, name) == 1


async def test_a_definition_is_not_kept_alive_by_having_been_enqueued_to(url: str, name: str) -> None:
    defn = defined(name)
    alive = weakref.ref(defn)
    async with producer(url, name) as p:
        await p.enqueue(defn, 1)

    del defn, p
    gc.collect()
    assert alive() is None


# Ids...


@pytest.mark.smoke
async def test_the_same_id_is_stored_once(url: str, name: str) -> None:
    async with producer(url, name) as p:
        first = await p.enqueue(name, 1, id="order-7")
        again = await p.enqueue(name, 2, id="order-7")
        many = await p.enqueue_many(name, [3, 4], ids=["order-7", "order-8"])

        assert first == Enqueued(name, 1, duplicate=False)
        assert again == many[0] == Enqueued(name, 1, duplicate=True)
        assert many[1] == Enqueued(name, 2, duplicate=False)
        assert await in_stream(p.js, name) == 2


async def test_without_an_id_each_job_is_another(url: str, name: str) -> None:
    async with producer(url, name) as p:
        await p.enqueue(name, 1)
        await p.enqueue(name, 1)
        await p.enqueue_many(name, [1, 1])
        await p.enqueue_many(name, [1, 1])
        assert await in_stream(p.js, name) == 6


# What is refused before a byte is sent...


class Unencodable:
    """No codec knows it."""


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"target": ""}, BadSubject, "empty"),
    ({"target": "a b"}, BadSubject, "blanks"),
    ({"target": "a.*"}, BadSubject, "wildcard"),
    ({"target": None}, UsageError, "a JobDef or a subject"),
    ({"target": perform}, UsageError, "a JobDef or a subject"),
    ({"subject": "b"}, UsageError, "was given as well"),
    ({"target": defined("S"), "subject": ""}, BadSubject, "empty"),
    ({"target": defined("S"), "subject": "S.>"}, BadSubject, "wildcard"),
    ({"payload": Unencodable()}, EncodeError, "Unencodable"),
    ({"delay": -1}, UsageError, "delay is -1"),
    ({"delay": math.inf}, UsageError, "finite"),
    ({"delay": math.nan}, UsageError, "finite"),
    ({"delay": "5"}, UsageError, "seconds"),
    ({"delay": timedelta(seconds=5)}, UsageError, "seconds"),
    ({"delay": 1e15}, UsageError, "seconds"),
    ({"at": datetime(2030, 1, 1)}, UsageError, "time zone"),
    ({"at": "2030-01-01T00:00:00Z"}, UsageError, "datetime"),
    ({"at": 5.0}, UsageError, "datetime"),
    ({"delay": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, UsageError, "one of them"),
    ({"headers": {"a b": "1"}}, BadSubject, "header name"),
    ({"headers": {"a": 1}}, UsageError, "'a' is 1"),
    ({"headers": {"a": None}}, UsageError, "'a' is None"),
    ({"headers": {"a": ["b", 1]}}, UsageError, "list of texts"),
    ({"headers": {1: "a"}}, UsageError, "text"),
    ({"headers": "a: b"}, UsageError, "mapping"),
    ({"headers": b"NATS/1.0\r\n\r\n"}, UsageError, "mapping"),
    ({"headers": {"Nats-Msg-Id": "7"}}, UsageError, "id"),
]


@pytest.mark.parametrize(("given", "error", "hint"), REFUSED)
async def test_bad_input_sends_nothing(
    url: str, name: str, given: dict[str, Any], error: type[Exception], hint: str
) -> None:
    target, payload = given.get("target", name), given.get("payload", 1)
    given = {key: value for key, value in given.items() if key not in ("target", "payload")}
    async with producer(url, name) as p:
        sent = p.connection.statistics().messages_out
        with pytest.raises(error, match=hint) as refused:
            await p.enqueue(target, payload, **given)

        assert isinstance(refused.value, NatsJobsError)
        with pytest.raises(error, match=hint):
            await p.enqueue_many(target, [1, payload, 2], **given)

        assert p.connection.statistics().messages_out == sent


@pytest.mark.parametrize("when", [{"delay": 61}, {"at": datetime.now(UTC) + timedelta(days=1)}])
async def test_a_job_is_not_enqueued_further_in_advance_than_its_definition_allows(
    url: str, name: str, when: dict[str, Any]
) -> None:
    defn = JobDef(stream=name, perform=perform, max_delay=60)
    async with job_processor(url) as p:
        with pytest.raises(UsageError, match="beyond max_delay of 60 s"):
            await p.enqueue(defn, None, **when)

        with pytest.raises(UsageError, match="beyond max_delay of 3"):
            await p.enqueue(name, None, delay=10_000 * 86_400)


@pytest.mark.parametrize("bad", ["", "a\nb", "a\r", 7, b"id"])
async def test_a_bad_id_sends_nothing(url: str, name: str, bad: Any) -> None:
    async with producer(url, name) as p:
        with pytest.raises(UsageError, match="id is"):
            await p.enqueue(name, 1, id=bad)

        with pytest.raises(UsageError, match="id is"):
            await p.enqueue_many(name, [1, 2], ids=["good", bad])

        assert await in_stream(p.js, name) == 0


async def test_there_must_be_as_many_ids_as_payloads(url: str, name: str) -> None:
    async with producer(url, name) as p:
        with pytest.raises(UsageError, match="3 payloads and 2 ids"):
            await p.enqueue_many(name, iter([1, 2, 3]), ids=["a", "b"])

        assert await in_stream(p.js, name) == 0


async def test_a_job_that_is_too_large_for_the_server_is_not_sent(url: str, name: str) -> None:
    async with producer(url, name) as p:
        limit = p.connection.max_payload
        with pytest.raises(PayloadTooLarge, match="the server accepts") as refused:
            await p.enqueue(name, bytes(limit))

        assert refused.value.limit == limit
        assert refused.value.size > limit
        await p.enqueue(name, bytes(limit - 500))
        assert await in_stream(p.js, name) == 1


# What the server does not take...


async def test_without_a_stream_an_enqueue_fails_when_its_time_is_up(url: str, name: str) -> None:
    async with job_processor(url, enqueue_timeout=0.3) as p:
        for target in (name, defined(name)):
            with pytest.raises(NotConfirmed, match="does the stream exist") as failed:
                await p.enqueue(target, 1)

            assert (failed.value.subject, failed.value.seconds) == (name, 0.3)

        with pytest.raises(EnqueueFailed, match="2 of 2") as many:
            await p.enqueue_many(name, [1, 2])

        failures = many.value.failures
        assert {position: type(error) for position, error in failures.items()} == dict.fromkeys(
            range(2), NotConfirmed
        )


async def test_a_stream_that_is_made_meanwhile_still_gets_the_job(url: str, name: str) -> None:
    async with job_processor(url) as p, anyio.create_task_group() as group:

        async def enqueue() -> None:
            assert await p.enqueue(name, 1) == Enqueued(name, 1, duplicate=False)

        group.start_soon(enqueue)
        await until(lambda: p.connection.statistics().messages_in)
        await p.js.add_stream(StreamConfig(name=name))


@pytest.mark.parametrize("first", [None, 10008, 10023, 10158, 10163, 10167])
async def test_what_may_pass_is_repeated_under_the_same_id(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch, first: int | None
) -> None:
    """Silence, or an error of a server that is busy with itself. Here somebody else answers in the place of a stream."""
    monkeypatch.setattr(_retrying, "TRY_TIMEOUT", 0.2)
    tries = Counter[str]()
    async with (
        job_processor(url, enqueue_timeout=LIMIT) as p,
        connect(url) as outside,
        outside.subscribe(name) as messages,
        anyio.create_task_group() as group,
    ):
        await outside.flush()

        async def answer() -> None:
            async for message in messages:
                id = message.headers["Nats-Msg-Id"]
                tries[id] += 1
                if tries[id] > 1:
                    await message.respond(b'{"stream":"S","seq":7}')
                elif first is not None:
                    await message.respond(b'{"error":{"code":503,"err_code":%d}}' % first)

        group.start_soon(answer)
        with anyio.fail_after(LIMIT / 2):
            stored = [await p.enqueue(name, 1), *await p.enqueue_many(name, [2, 3])]

        assert stored == [Enqueued("S", 7, duplicate=False)] * 3
        group.cancel_scope.cancel("the test is over")

    # On a slow machine an answer may come too late for a try that is this short.
    assert len(tries) == 3
    assert min(tries.values()) == 2


async def test_a_full_stream_refuses_at_once(url: str, name: str) -> None:
    async with producer(url, name, max_msgs=2, discard=DiscardPolicy.NEW) as p:
        await p.enqueue_many(name, [1, 2])
        with (
            pytest.raises(PublishRefused, match="maximum messages exceeded") as refused,
            anyio.fail_after(10),
        ):
            await p.enqueue(name, 3)

        assert refused.value.err_code == 10077
        with pytest.raises(EnqueueFailed) as failed, anyio.fail_after(10):
            await p.enqueue_many(name, [4, 5])

        assert list(failed.value.failures) == [0, 1]
        assert await in_stream(p.js, name) == 2


async def test_a_subject_that_belongs_to_another_stream_is_refused(url: str, name: str) -> None:
    async with producer(url, name) as p:
        elsewhere = defined(f"{name}_2", stream_config=StreamConfig(subjects=[f"{name}.mine"]))
        with pytest.raises(PublishRefused, match="expected stream") as refused:
            await p.enqueue(elsewhere, 1)

        assert refused.value.err_code == 10060
        assert await in_stream(p.js, name) == 0


@pytest.mark.parametrize(
    "odd",
    [
        b"thank you",
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"stream":"A"}',
        b'{"stream":"A","seq":"1"}',
        b'{"stream":"A","seq":null}',
        b'{"stream":"A","seq":true}',
        b'{"stream":"A","seq":NaN}',
        b'{"stream":"A","seq":Infinity}',
        b'{"stream":"A","seq":1.0}',
        b'{"stream":"A","seq":%b}' % (b"9" * 5000),
        b'{"stream":"A","seq":\xb2}',
        b'{"stream":"A","seq":1]',
        b'{"stream":1,"seq":1}',
        b'{"seq":1,"stream":1}',
        b'{"seq":1,"stream":2}',
        b'{"seq":1,"stream":"A:2}',
        b'{"stream":"A","seq":1,"duplicate":1}',
        b'{"error":1}',
        b'{"error":{"err_code":[],"description":"x"}}',
        b'{"error":{"err_code":1,"description":[]}}',
    ],
    ids=lambda odd: repr(odd[:40]),
)
async def test_an_answer_of_a_subscriber_is_no_confirmation(url: str, name: str, odd: bytes) -> None:
    """Nor the end of the connection, in whose reader many are read; also when the stream's own have been seen before."""
    for usual in (b'{"stream":"A","seq":1}', b'{"seq":1,"stream":"A:1"}'):
        parse_pub_ack(name, answer(usual))

    async with (
        job_processor(url) as p,
        p.connection.subscribe(name) as subscription,
        anyio.create_task_group() as group,
    ):

        async def respond() -> None:
            for _ in range(2):
                await (await subscription.receive()).respond(odd)

        group.start_soon(respond)
        with anyio.fail_after(LIMIT):
            with pytest.raises(PublishRefused, match="not a confirmation"):
                await p.enqueue(name, 1)

            with pytest.raises(EnqueueFailed, match="not a confirmation"):
                await p.enqueue_many(name, [1])


def answer(data: bytes) -> Msg:
    return Msg("", 1, "", b"", data)


@pytest.mark.parametrize(
    ("written", "stream", "sequence", "duplicate"),
    [
        (b'{"stream":"A","seq":%d}', "A", 1, False),
        (b'{"stream":"A", "seq":%d}', "A", 1, False),
        (b'{"stream":"B","seq":%d}', "B", 1, False),
        (b'{"stream":"A","seq":%d,"duplicate":true}', "A", 1, True),
        (b'{"stream":"A","seq":%d,"duplicate":false}', "A", 1, False),
        (b'{"duplicate":true,"stream":"A","seq":%d}', "A", 1, True),
        (b'{"stream":"A","domain":"hub","seq":%d}', "A", 1, False),
        (b'{"stream":"A","seq":%d,"domain":"hub:5"}', "A", 1, False),
        (b'{"seq":%d,"stream":"A"}', "A", 1, False),
        (b'{"seq":%d,"stream":"A:5"}', "A:5", 1, False),
        (b'{"stream":"A:5","seq":%d}', "A:5", 1, False),
        (b' { "stream" : "A" , "seq" : %d } \n', "A", 1, False),
        (b'{"stream":"A","stream":"B","seq":%d}', "B", 1, False),
        (b'{"stream":"A\\"","seq":%d}', 'A"', 1, False),
    ],
)
def test_a_confirmation_is_read_however_it_is_written_and_often(
    written: bytes, stream: str, sequence: int, duplicate: bool
) -> None:
    for times in (1, 1, 10, 10**6, 2**64 - 1):
        read = parse_pub_ack("x", answer(written % (sequence * times)))
        assert read == Enqueued(stream, sequence * times, duplicate)
        assert type(read.duplicate) is bool


def test_what_is_kept_of_confirmations_is_bounded() -> None:
    for number in range(2000):
        assert parse_pub_ack("x", answer(b'{"stream":"S%d","seq":7}' % number)).stream == f"S{number}"
        assert len(_pub_ack._streams) <= 256

    long = "x" * 50_000
    assert parse_pub_ack("x", answer(b'{"stream":"%b","seq":7}' % long.encode())).stream == long
    assert max(map(len, _pub_ack._streams)) < 2000


# Many...


@pytest.mark.smoke
async def test_many_are_stored_in_their_order_and_answered_in_it(url: str, name: str) -> None:
    async with producer(url, name) as p:
        results = await p.enqueue_many(defined(name), range(5000))

        assert results == [Enqueued(name, sequence, duplicate=False) for sequence in range(1, 5001)]
        assert await in_stream(p.js, name) == 5000
        for sequence in (1, 1025, 5000):
            message = await stored(p, name, sequence)
            assert codecs.MSGPACK.decode(message.data) == sequence - 1

        ids = {
            (await stored(p, name, sequence)).headers["Nats-Msg-Id"] for sequence in (1, 2, 256, 257, 5000)
        }
        assert len(ids) == 5


@pytest.mark.parametrize(
    ("bound", "most"), [("_MAX_IN_FLIGHT", 10), ("_MAX_BYTES_IN_FLIGHT", 10_000)], ids=["count", "bytes"]
)
async def test_only_so_many_are_unanswered_at_a_time_and_they_do_not_go_one_by_one(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(_publish_many, bound, most)
    async with producer(url, name) as p:
        ask = p.connection.lowlevel.request_nowait
        unanswered: list[int] = []

        def counted(*args: Any) -> str:
            reply_subject = ask(*args)
            unanswered.append(len(p.connection.lowlevel.requests))
            return reply_subject

        monkeypatch.setattr(p.connection.lowlevel, "request_nowait", counted)
        await p.enqueue_many(name, [bytes(1000)] * 100)

    assert len(unanswered) == 100
    assert max(unanswered) == 10
    assert unanswered.count(1) <= 50


async def test_others_have_turns_while_many_are_made(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link among them: the server works on the first ones meanwhile."""
    turns = 0
    seen: list[int] = []
    async with producer(url, name) as p, anyio.create_task_group() as group:
        ask = p.connection.lowlevel.request_nowait

        async def other() -> None:
            nonlocal turns
            while True:
                await checkpoint()
                turns += 1

        def noted(*args: Any) -> str:
            seen.append(turns)
            return ask(*args)

        group.start_soon(other)
        await checkpoint()
        monkeypatch.setattr(p.connection.lowlevel, "request_nowait", noted)
        await p.enqueue_many(name, range(1300))
        group.cancel_scope.cancel("enqueued")

    # One for each row at the most, and not for each message: that would take longer than all the rest.
    assert 5 <= len(set(seen)) <= 130


async def test_none_at_all_is_fine(url: str, name: str) -> None:
    async with producer(url, name) as p:
        assert await p.enqueue_many(name, []) == []


async def test_one_that_is_too_large_is_named_and_the_others_are_stored(url: str, name: str) -> None:
    async with producer(url, name) as p:
        payloads: list[Any] = list(range(300))
        payloads[217] = bytes(p.connection.max_payload)
        with pytest.raises(
            EnqueueFailed, match="1 of 300 jobs were not confirmed; the first, number 217"
        ) as failed:
            await p.enqueue_many(name, payloads)

        assert list(failed.value.failures) == [217]
        assert isinstance(failed.value.failures[217], PayloadTooLarge)
        assert await in_stream(p.js, name) == 299


async def test_headers_and_ids_and_delay_are_those_of_each(url: str, name: str) -> None:
    async with producer(url, name) as p:
        await p.enqueue_many(name, [1, 2], ids=["a", "b"], headers={"X-Odd": "a\x1fb"}, delay=60)
        for sequence, id in ((1, "a"), (2, "b")):
            headers = (await stored(p, name, sequence)).headers
            assert headers["Nats-Msg-Id"] == id
            assert headers["X-Odd"] == "a\x1fb"
            wait = datetime.fromisoformat(headers["Nats-Jobs-Not-Before"]) - datetime.now(UTC)
            assert timedelta(0) < wait <= timedelta(seconds=60)


# The server goes and comes back...


async def test_an_enqueue_waits_for_a_server_that_comes_back_and_is_stored_once() -> None:
    async with run_server() as server, job_processor(server.url, reconnect_time_wait=0.1) as p:
        await p.js.add_stream(StreamConfig(name="BACK"))
        results: list[Any] = []

        async def enqueue(number: int) -> None:
            results.append(await p.enqueue("BACK", number, id=f"job-{number}"))

        async def enqueue_many() -> None:
            results.extend(
                await p.enqueue_many("BACK", range(10, 20), ids=[f"job-{n}" for n in range(10, 20)])
            )

        async with anyio.create_task_group() as group:
            server.kill()
            await server.wait_exited()
            for number in range(10):
                group.start_soon(enqueue, number)

            group.start_soon(enqueue_many)
            await anyio.wait_all_tasks_blocked()
            await server.restart()

        assert len(results) == 20
        assert {result.stream for result in results} == {"BACK"}
        assert await in_stream(p.js, "BACK") == 20


async def test_what_is_enqueued_while_the_server_is_killed_is_stored_once_each() -> None:
    async with run_server() as server, job_processor(server.url, reconnect_time_wait=0.1) as p:
        await p.js.add_stream(StreamConfig(name="BACK"))
        confirmed = 0

        async def enqueue(first: int) -> None:
            nonlocal confirmed
            for number in range(first, first + 100):
                await p.enqueue("BACK", number, id=f"job-{number}")
                confirmed += 1

        async with anyio.create_task_group() as group:
            for first in (0, 100, 200):
                group.start_soon(enqueue, first)

            await until(lambda: confirmed >= 30)
            server.kill()
            await server.restart()

        assert confirmed == 300
        assert await in_stream(p.js, "BACK") == 300


async def test_after_its_time_an_enqueue_without_a_server_fails() -> None:
    async with run_server() as server, job_processor(server.url, enqueue_timeout=0.3) as p:
        server.kill()
        await server.wait_exited()
        with pytest.raises(NotConfirmed), anyio.fail_after(20):
            await p.enqueue("BACK", 1)


@pytest.mark.parametrize("mute", [False, True])
async def test_cancelling_an_enqueue_ends_it_and_leaves_nothing(url: str, name: str, mute: bool) -> None:
    """Between two tries, and during one: a subscriber hides that there is no stream."""
    async with job_processor(url) as p, p.connection.subscribe(name if mute else f"{name}.others"):
        for enqueue in (lambda: p.enqueue(name, 1), lambda: p.enqueue_many(name, [1, 2])):
            with anyio.move_on_after(0.05) as scope:
                await enqueue()

            assert scope.cancelled_caught
            assert not len(p.connection.lowlevel.requests)
