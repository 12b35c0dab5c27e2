"""A job whose last delivery is lost ends as a dead letter all the same, once, and only if nobody has ended it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from nats.js.api import ConsumerConfig, StreamConfig

from nats_jobs import CancelReason, Job, JobDef, JobProcessor, Reject, dead_letters, job_processor
from nats_jobs.errors import NoResponders
from nats_jobs.events import Complete, DeadLettered, LeaseLost, Receive, Stop
from nats_jobs.jetstream import Delivery
from nats_jobs.jobs import _max_deliveries
from nats_jobs.jobs._max_deliveries import MaxDeliveriesMonitor
from nats_jobs.server import run_server
from nats_jobs.wire import connect
from support.jobs import LIMIT, Seen, engine_of, in_stream, until, until_empty
from support.letters import letters_of, park_jobs
from support.settling import settle

pytestmark = pytest.mark.anyio

ACK_WAIT = 0.5
# The lease does not end in the test: the test itself says what the server would say then.
LONG = 20 * LIMIT


@pytest.fixture(autouse=True)
def no_waiting_for_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody holds the job that is said to be lost, nobody answers."""
    monkeypatch.setattr(_max_deliveries, "_MAX_ANSWER_TIMEOUT", 0.1)


def definition(stream: str, max_deliver: int = 1, ack_wait: float = ACK_WAIT, **options: Any) -> JobDef[Any]:
    async def perform(job: Job[Any]) -> None:
        await checkpoint()

    config = ConsumerConfig(max_deliver=max_deliver, ack_wait=ack_wait)
    fields: dict[str, Any] = {"perform": perform, "num_attempts": 1, "consumer_config": config, **options}
    return JobDef(stream=stream, **fields)


@asynccontextmanager
async def first_in_line(
    p: JobProcessor, stream: str, count: int = 1
) -> AsyncIterator[Callable[[], Awaitable[Delivery]]]:
    """Pull before all workers, as a worker would that dies then: the next deliveries come here. Answer nothing."""
    inbox = p.connection.new_inbox()
    async with p.connection.subscribe(inbox) as messages:
        for _ in range(count):
            # One message each: the rest of a larger request would go to the end of the line.
            await p.connection.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{stream}Consumer", b'{"batch":1}', reply=inbox
            )

        # A request through the same server, so that the pull stands when this returns.
        await p.js.consumer_info(stream, f"{stream}Consumer")

        async def delivery() -> Delivery:
            with anyio.fail_after(LIMIT):
                return Delivery(p.connection, await anext(aiter(messages)), 0.0)

        yield delivery


async def tell(p: JobProcessor, stream: str, sequence: int, deliveries: int = 1) -> None:
    """Say what the server says when the last delivery was lost."""
    subject = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.{stream}Consumer"
    fields = {
        "stream": stream,
        "consumer": f"{stream}Consumer",
        "stream_seq": sequence,
        "deliveries": deliveries,
    }
    await p.connection.publish(subject, json.dumps(fields).encode())


@pytest.mark.parametrize("max_deliver", [1, 2, 3])
async def test_a_job_whose_last_delivery_is_lost_becomes_a_dead_letter(
    url: str, name: str, max_deliver: int
) -> None:
    """With one delivery the server says so when its lease ends; with more when a worker waits for a job then."""
    seen = Seen()
    defn = definition(name, max_deliver)
    await park_jobs(url, defn, [])
    async with job_processor(url, on_event=seen) as p, first_in_line(p, name, max_deliver) as delivery:
        handle = await p.start(defn)
        await p.enqueue(defn, "x", id="job-7", headers={"X-Mine": ["a", "b"]})
        for attempt in range(1, max_deliver + 1):
            assert (await delivery()).attempt == attempt

        await until_empty(p.js, name)
        [event] = await seen.wait_for(DeadLettered)
        [letter] = await letters_of(p, name)
        assert handle.statistics().dead_lettered == 1
        await p.stop()

    assert (letter.reason, letter.attempts, letter.original_sequence) == ("crash-loop", max_deliver, 1)
    assert (letter.payload(), letter.id, letter.subject) == ("x", "job-7", name)
    assert letter.headers.get_all("X-Mine") == ["a", "b"]
    assert "was lost" in letter.error
    assert (event.reason, event.sequence, event.attempt, event.id) == ("crash-loop", 1, max_deliver, "job-7")


async def test_of_several_workers_one_acts(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    find = dead_letters.StoredMessage.find

    async def noted(connection: Any, stream: str, consumer: str, sequence: int, attempt: int) -> Any:
        looked_at.append(sequence)
        return await find(connection, stream, consumer, sequence, attempt)

    monkeypatch.setattr(dead_letters.StoredMessage, "find", noted)
    seen = Seen()
    defn = definition(name)
    await park_jobs(url, defn, [])
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(job_processor(url, on_event=seen)) for _ in range(3)]
        p = fleet[0]
        delivery = await stack.enter_async_context(first_in_line(p, name, 5))
        handles = [await each.start(defn) for each in fleet]
        await p.enqueue_many(defn, range(5))
        for _ in range(5):
            await delivery()

        await until_empty(p.js, name)
        await until(lambda: sum(handle.statistics().dead_lettered for handle in handles) == 5)
        assert sorted([letter.payload() for letter in await letters_of(p, name)]) == list(range(5))
        for each in fleet:
            await each.stop()

    assert sorted(event.sequence for event in seen.of(DeadLettered)) == [1, 2, 3, 4, 5]
    assert sorted(looked_at) == [1, 2, 3, 4, 5]


async def test_who_finds_a_job_removed_by_somebody_else_does_not_count_it(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[bool] = []
    remove = dead_letters.StoredMessage.remove

    async def after_another(job: dead_letters.StoredMessage, connection: Any) -> bool:
        removed.append(await remove(job, connection))
        removed.append(await remove(job, connection))
        return removed[-1]

    monkeypatch.setattr(dead_letters.StoredMessage, "remove", after_another)
    seen = Seen()
    defn = definition(name, ack_wait=LONG)
    await park_jobs(url, defn, [])
    async with job_processor(url, on_event=seen) as p, first_in_line(p, name) as delivery:
        handle = await p.start(defn)
        await p.enqueue(defn, "lost")
        await delivery()
        await tell(p, name, 1)
        await until(lambda: len(removed) == 2)
        await p.stop()

    assert removed == [True, False]
    assert handle.statistics().dead_lettered == 0
    assert not seen.of(DeadLettered)


async def test_a_late_ack_wins(url: str, name: str) -> None:
    """The lease is over, and no worker has pulled since. What is lost after it shows that both were looked at."""
    defn = definition(name, max_deliver=2)
    await park_jobs(url, defn, [])
    async with job_processor(url) as p:
        async with first_in_line(p, name, 2) as delivery:
            await p.enqueue(defn, "late")
            await delivery()
            last = await delivery()
            await anyio.sleep(2 * ACK_WAIT)
            await settle(last)

        async with first_in_line(p, name, 2) as delivery:
            await p.start(defn)
            await p.enqueue(defn, "lost")
            for _ in range(2):
                await delivery()

            await until_empty(p.js, name)
            assert [letter.payload() for letter in await letters_of(p, name)] == ["lost"]
            await p.stop()


async def test_what_has_ended_before_it_is_looked_at_is_left_alone(url: str, name: str) -> None:
    defn = definition(name, ack_wait=LONG)
    await park_jobs(url, defn, [])
    async with job_processor(url) as p, first_in_line(p, name, 2) as delivery:
        await p.start(defn)
        await p.enqueue_many(defn, ["acked", "lost"])
        await settle(await delivery())
        await delivery()
        await tell(p, name, 1)
        await tell(p, name, 2)
        await until_empty(p.js, name)
        assert [letter.payload() for letter in await letters_of(p, name)] == ["lost"]
        await p.stop()


async def test_a_job_parked_by_a_worker_that_died_then_is_parked_once(url: str, name: str) -> None:
    defn = definition(name)
    await park_jobs(url, defn, [])
    async with job_processor(url) as p, first_in_line(p, name) as delivery:
        await p.start(defn)
        await p.enqueue(defn, "x")
        await dead_letters.park(p.api, await delivery(), "rejected", Reject("no"))
        await until_empty(p.js, name)
        assert [letter.reason for letter in await letters_of(p, name)] == ["rejected"]
        await p.stop()


def performed_until(released: anyio.Event, reasons: list[CancelReason | None]) -> Callable[[Job[Any]], Any]:
    async def perform(job: Job[Any]) -> None:
        try:
            await released.wait()
        finally:
            reasons.append(job.reason)

    return perform


async def test_who_still_performs_it_is_told_that_it_is_over(url: str, name: str) -> None:
    """A server that crashed has forgotten that the lease was extended; here somebody gives it back instead."""
    reasons = list[CancelReason | None]()
    seen = Seen()
    defn = definition(name, ack_wait=LONG, concurrency=2, perform=performed_until(anyio.Event(), reasons))
    async with job_processor(url, on_event=seen) as p:
        handle = await p.start(defn)
        await p.enqueue(defn, "x")
        await until(lambda: handle.running)
        [job] = handle.running
        async with connect(url) as outside:
            await outside.publish(job._control.delivery._message.reply, b"-NAK")
            await until_empty(p.js, name)

        await seen.wait_for(LeaseLost)
        await seen.wait_for(DeadLettered)
        assert [letter.reason for letter in await letters_of(p, name)] == ["crash-loop"]
        await p.stop()

    assert reasons == [CancelReason.LEASE_LOST]


@pytest.mark.parametrize(
    ("max_deliver", "listener"), [(1, "who performs it"), (2, "who performs it"), (2, "another")]
)
async def test_a_forged_advisory_does_not_end_a_job_that_is_performed(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch, max_deliver: int, listener: str
) -> None:
    """Whichever worker of the fleet gets it, it asks the one that performs the job; and goes on to end what is lost."""
    monkeypatch.setattr(_max_deliveries, "_MAX_ANSWER_TIMEOUT", 5.0)
    monkeypatch.setattr(_max_deliveries, "_RETRY_INTERVAL", 0.05)
    reasons = list[CancelReason | None]()
    released = anyio.Event()
    seen, heard = Seen(), list[int]()
    look = MaxDeliveriesMonitor._look

    async def noted(monitor: MaxDeliveriesMonitor, lost: Any) -> float | None:
        heard.append(lost.sequence)
        return await look(monitor, lost)

    monkeypatch.setattr(MaxDeliveriesMonitor, "_look", noted)
    defn = definition(name, max_deliver, LONG, perform=performed_until(released, reasons))
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(job_processor(url, on_event=seen))]
        p = fleet[0]
        handle = await p.start(defn)
        monitors = [engine_of(handle)._max_deliveries]
        await p.enqueue(defn, "x")
        await until(lambda: handle.running)
        if listener == "another":
            fleet.append(await stack.enter_async_context(job_processor(url, on_event=seen)))
            monitors.append(engine_of(await fleet[1].start(defn))._max_deliveries)
            p.connection.lowlevel.unsubscribe(monitors[0]._sid)
            await p.connection.flush()

        def was_ignored() -> bool:
            return any(monitor.ignored for monitor in monitors)

        await tell(p, name, 1, max_deliver)
        # Of a last delivery it is asked again, since it could be true, and its holder could die.
        await until(lambda: len(heard) >= 3 if max_deliver == 1 else was_ignored())
        assert not reasons
        released.set()
        await until_empty(p.js, name)
        await seen.wait_for(Complete)
        assert await p.dead_letters.count(stream=name) == 0
        for each in fleet:
            await each.stop()

    assert reasons == [None]
    assert not seen.of(LeaseLost)
    assert not seen.of(DeadLettered)


async def test_a_forged_advisory_about_a_job_that_was_not_delivered_is_ignored_and_said_once(
    url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    released = anyio.Event()
    defn = definition(name, ack_wait=LONG, concurrency=1, perform=performed_until(released, []))
    async with job_processor(url) as p:
        handle = await p.start(defn)
        await p.enqueue_many(defn, ["performed", "waits", "waits too"])
        await until(lambda: handle.running)
        for sequence in (3, 3, 99):
            await tell(p, name, sequence)

        monitor = engine_of(handle)._max_deliveries
        await until(lambda: monitor.ignored >= 2)
        released.set()
        await until_empty(p.js, name)
        assert await p.dead_letters.count(stream=name) == 0
        await p.stop()

    assert len([text for text in caplog.messages if "is ignored" in text]) == 1


async def test_an_advisory_does_not_remove_the_job_of_another_consumer(url: str, name: str) -> None:
    """In a stream that several consumers share by subject, each has passed the other's messages by."""
    stream_config = StreamConfig(subjects=[f"{name}.>"])
    config = ConsumerConfig(max_deliver=1, ack_wait=LONG, filter_subject=f"{name}.mine")
    defn = definition(name, stream_config=stream_config, consumer_config=config)
    async with job_processor(url) as p:
        handle = await p.start(defn)
        await p.js.publish(f"{name}.theirs", b"")
        await p.js.publish(f"{name}.mine", b"null")
        await until(lambda: handle.statistics().completed == 1)
        await tell(p, name, 1)
        monitor = engine_of(handle)._max_deliveries
        await until(lambda: monitor.ignored == 1)
        assert await in_stream(p.js, name) == 1
        assert await p.dead_letters.count(stream=name) == 0
        await p.stop()


async def test_without_dead_letters_it_is_removed_and_told(url: str, name: str) -> None:
    seen = Seen()
    defn = definition(name, dead_letter=False)
    await park_jobs(url, defn, [])
    async with job_processor(url, on_event=seen) as p, first_in_line(p, name) as delivery:
        await p.start(defn)
        await p.enqueue(defn, "x")
        await delivery()
        await until_empty(p.js, name)
        [event] = await seen.wait_for(DeadLettered)
        assert (event.reason, event.sequence) == ("crash-loop", 1)
        assert await p.dead_letters.count(stream=name) == 0
        await p.stop()


async def test_what_cannot_be_parked_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_max_deliveries, "_RETRY_INTERVAL", 0.1)
    full: Any = {**dead_letters.stream_config(), "discard": "new", "max_msgs": 1}
    async with run_server() as server, job_processor(server.url) as p:
        await p.js.add_stream(StreamConfig(**full))
        await p.js.publish("dead_letters.OTHERS.x", b"")
        defn = definition("JOBS")
        await park_jobs(server.url, defn, [])
        async with first_in_line(p, "JOBS") as delivery:
            await p.start(defn)
            await p.enqueue(defn, "x")
            await delivery()
            await until(lambda: said(caplog))
            assert await in_stream(p.js, "JOBS") == 1
            await p.dead_letters.purge()
            await until_empty(p.js, "JOBS")
            assert [letter.payload() for letter in await letters_of(p, "JOBS")] == ["x"]
            await p.stop()


async def test_one_that_cannot_be_ended_does_not_hold_up_the_others(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    park = dead_letters.park

    async def all_but_the_first(connection: Any, job: Any, *args: Any) -> None:
        if job.sequence == 1:
            raise NoResponders("dead_letters")

        await park(connection, job, *args)

    monkeypatch.setattr(_max_deliveries, "_RETRY_INTERVAL", 0.05)
    monkeypatch.setattr(dead_letters, "park", all_but_the_first)
    defn = definition(name, ack_wait=LONG)
    await park_jobs(url, defn, [])
    async with job_processor(url) as p, first_in_line(p, name, 2) as delivery:
        await p.start(defn)
        await p.enqueue_many(defn, ["first", "second"])
        for sequence in (1, 2):
            await delivery()
            await tell(p, name, sequence)

        await until(lambda: only_one_left(p, name))
        assert [letter.payload() for letter in await letters_of(p, name)] == ["second"]
        await p.stop()


async def test_what_is_parked_is_not_parked_again_when_its_removal_fails(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server recognizes a second letter for a while only."""
    parked: list[int] = []
    removals = 0
    park, remove = dead_letters.park, dead_letters.StoredMessage.remove

    async def noted(connection: Any, job: Any, *args: Any) -> None:
        parked.append(job.sequence)
        await park(connection, job, *args)

    async def fail_first(job: dead_letters.StoredMessage, connection: Any) -> bool:
        nonlocal removals
        removals += 1
        if removals == 1:
            raise NoResponders("STREAM.MSG.DELETE")

        return await remove(job, connection)

    monkeypatch.setattr(_max_deliveries, "_RETRY_INTERVAL", 0.05)
    monkeypatch.setattr(dead_letters, "park", noted)
    monkeypatch.setattr(dead_letters.StoredMessage, "remove", fail_first)
    defn = definition(name, ack_wait=LONG)
    await park_jobs(url, defn, [])
    async with job_processor(url) as p, first_in_line(p, name) as delivery:
        await p.start(defn)
        await p.enqueue(defn, "x")
        await delivery()
        await tell(p, name, 1)
        await until_empty(p.js, name)
        await p.stop()

    assert removals == 2
    assert parked == [1]


async def test_more_than_can_be_kept_in_mind_is_said_to_stay(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_max_deliveries, "_MAX_WAITING", 0)
    defn = definition(name, ack_wait=LONG)
    await park_jobs(url, defn, [])
    async with job_processor(url) as p, first_in_line(p, name) as delivery:
        await p.start(defn)
        await p.enqueue(defn, "x")
        await delivery()
        await tell(p, name, 1)
        await until(lambda: "too many of them" in caplog.text)
        assert await in_stream(p.js, name) == 1
        await p.stop()


async def test_a_stop_while_a_job_is_being_removed_begins_nothing_new(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal is waited for; until then a request at the server would go on bringing jobs."""
    removing, release = anyio.Event(), anyio.Event()
    remove = dead_letters.StoredMessage.remove

    async def slowly(*args: Any) -> bool:
        removing.set()
        await release.wait()
        return await remove(*args)

    monkeypatch.setattr(dead_letters.StoredMessage, "remove", slowly)
    seen = Seen()
    defn = definition(name, ack_wait=LONG)
    await park_jobs(url, defn, [])
    async with job_processor(url, on_event=seen) as p:
        async with first_in_line(p, name) as delivery:
            handle = await p.start(defn)
            await p.enqueue(defn, "lost")
            await delivery()
            await tell(p, name, 1)
            with anyio.fail_after(LIMIT):
                await removing.wait()

        async with anyio.create_task_group() as group:
            group.start_soon(handle.stop)
            await seen.wait_for(Stop)
            await anyio.wait_all_tasks_blocked()
            await p.enqueue(defn, "next")
            await p.connection.flush()
            await anyio.sleep(0.1)
            assert not seen.of(Receive)
            release.set()

        assert await in_stream(p.js, name) == 1
        assert [letter.payload() for letter in await letters_of(p, name)] == ["lost"]


@pytest.mark.parametrize(
    "denied",
    [
        'subscribe { deny: "$JS.EVENT.>" }',
        'publish { deny: "$JS.API.STREAM.MSG.GET.JOBS" }',
        'publish { deny: "$JS.API.STREAM.MSG.DELETE.>" }',
        'publish { deny: "dead_letters.>" }',
    ],
)
async def test_a_worker_that_may_not_do_it_says_so_and_works_on(
    denied: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = f"""
        accounts {{ A {{ jetstream: enabled, users: [
            {{ user: u, password: p, permissions {{ {denied} }} }}
        ] }} }}
    """
    seen = Seen()
    async with run_server(config=config) as server:
        url = f"nats://u:p@{server.url.removeprefix('nats://').rpartition('@')[2]}"
        defn = definition("JOBS", ack_wait=LONG)
        await park_jobs(url, defn, [])
        caplog.clear()
        async with job_processor(url, on_event=seen) as p, first_in_line(p, "JOBS") as delivery:
            await p.start(defn)
            await p.enqueue(defn, "lost")
            await delivery()
            await tell(p, "JOBS", 1)
            await until(lambda: said(caplog))
            await p.enqueue(defn, "next")
            await seen.wait_for(Complete)
            await until(lambda: only_one_left(p))
            assert not seen.of(DeadLettered)
            await p.stop()

    assert len(said(caplog)) == 1
    assert "no permission" in said(caplog)[0]


async def test_strange_advisories_are_ignored(url: str, name: str) -> None:
    defn = definition(name, ack_wait=LONG)
    await park_jobs(url, defn, [])
    async with job_processor(url) as p, first_in_line(p, name) as delivery:
        await p.start(defn)
        await p.enqueue(defn, "x")
        await delivery()
        deep, long = b"[" * 5000, b"9" * 5000
        odd = (b"", b"[]", b"{}", b'"text"', deep, b'{"stream_seq": ' + long + b', "deliveries": 1}')
        for data in (*odd, b'{"stream_seq": null, "deliveries": 1}'):
            await p.connection.publish(
                f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{name}.{name}Consumer", data
            )

        await tell(p, name, 99)
        await tell(p, name, 1)
        await until_empty(p.js, name)
        assert await p.dead_letters.count(stream=name) == 1
        await p.stop()


async def only_one_left(p: JobProcessor, stream: str = "JOBS") -> bool:
    return await in_stream(p.js, stream) == 1


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged about jobs that stay in the stream."""
    return [
        text
        for text in caplog.messages
        if "will stay in the stream" in text or "could not be made a dead letter" in text
    ]
