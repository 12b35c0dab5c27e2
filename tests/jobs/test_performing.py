"""A job runs: from a publisher's message to its ending, on each backend, against a real server."""

from __future__ import annotations

import contextvars
import math
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import from_thread
from nats.js.api import ConsumerConfig

from nats_jobs import CancelReason, Job, JobDef, Reject, Retry, Snooze, codecs, job, job_processor
from nats_jobs.errors import JobTimeout
from nats_jobs.events import (
    Complete,
    Connected,
    DeadLettered,
    Error,
    Interrupted,
    Pull,
    Receive,
    Start,
    Stop,
    Timeout,
)
from nats_jobs.jobs._emitter import Emitter
from nats_jobs.wire import connect
from support.jobs import LIMIT, Seen, until, until_empty
from support.loops import anyio_backend as anyio_backend
from support.outside import publish_from_outside

pytestmark = pytest.mark.anyio

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


async def test_a_message_of_a_client_without_headers_is_delivered_as_its_bytes(url: str, name: str) -> None:
    got: list[Job[bytes]] = []

    @job(name)
    async def keep(job: Job[bytes]) -> None:
        got.append(job)

    async with job_processor(url) as p:
        await p.start(keep)
        async with connect(url) as outside:
            await outside.publish(name, b"someText")

        await until(lambda: got)
        await until_empty(p.js, name)
        await p.stop()

    assert got[0].payload == got[0].data == b"someText"
    assert (got[0].subject, got[0].stream, got[0].sequence, got[0].attempt) == (name, name, 1, 1)
    assert got[0].num_attempts == 5
    assert got[0].id is None
    assert got[0].headers == {}
    assert got[0].fence == (1, 1)
    assert datetime.now(UTC) - got[0].enqueued_at < timedelta(minutes=1)


async def test_what_nats_py_publishes_from_another_process_is_performed_and_removed(
    url: str, name: str
) -> None:
    numbers: list[int] = []

    @job(name, concurrency=3, codec=codecs.JSON)
    async def keep(job: Job[dict[str, int]]) -> None:
        numbers.append(job.payload["number"])

    async with job_processor(url) as p:
        await p.start(keep)
        await publish_from_outside(url, name, 20, payload='{"number": {}}')
        await until_empty(p.js, name)
        await p.stop()

    assert sorted(numbers) == list(range(20))


@pytest.mark.smoke
async def test_what_is_enqueued_comes_back_as_it_was(url: str, name: str) -> None:
    payload = {
        "when": datetime(2026, 11, 23, 12, 30, 0, 123456, UTC),
        "items": [1, "two", None, 3.5],
        "raw": b"\x00",
    }
    got: list[Any] = []

    @job(name)
    async def keep(job: Job[Any]) -> None:
        got.append((job.payload, job.id, dict(job.headers)))

    async with job_processor(url) as p:
        await p.start(keep)
        first = await p.enqueue(keep, payload, id="mine", headers={"X-Trace": "7"})
        again = await p.enqueue(keep, payload, id="mine")
        await until_empty(p.js, name)
        await p.stop()

    assert (first.stream, first.sequence, first.duplicate) == (name, 1, False)
    assert (again.sequence, again.duplicate) == (1, True)
    assert [entry[0] for entry in got] == [payload]
    assert got[0][1] == "mine"
    assert got[0][2]["X-Trace"] == "7"


async def test_the_content_type_of_a_message_says_how_it_is_decoded(url: str, name: str) -> None:
    got: list[Any] = []

    @job(name, codec=codecs.TEXT)
    async def keep(job: Job[Any]) -> None:
        got.append(job.payload)

    async with job_processor(url) as p:
        await p.start(keep)
        async with connect(url) as outside:
            await outside.publish(name, b"plain")
            await outside.publish(
                name, b'{"a": 1}', headers={"Content-Type": "application/json; charset=utf-8"}
            )
            await outside.publish(
                name, b"\x81\xa1a\x01", headers={"content-type": "x", "Content-Type": "application/msgpack"}
            )
            await outside.publish(name, b"[7]", headers={"content-type": "application/json"})
            await outside.publish(name, b"%PDF", headers={"Content-Type": "application/pdf"})

        await until_empty(p.js, name)
        await p.stop()

    assert got == ["plain", {"a": 1}, {"a": 1}, [7], b"%PDF"]


@pytest.mark.smoke
async def test_a_failing_job_is_tried_again_with_its_backoff_until_it_succeeds(url: str, name: str) -> None:
    seen = Seen()
    attempts: list[int] = []

    @job(name, backoff=[0.05, 0.1])
    async def third_time_lucky(job: Job[None]) -> None:
        attempts.append(job.attempt)
        if job.attempt < 3:
            raise ValueError(f"attempt {job.attempt}")

    async with job_processor(url, on_event=seen) as p:
        await p.start(third_time_lucky)
        await p.enqueue(third_time_lucky, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1, 2, 3]
    assert [(event.backoff, event.attempts_exhausted, str(event.error)) for event in seen.of(Error)] == [
        (0.05, False, "attempt 1"),
        (0.1, False, "attempt 2"),
    ]
    assert [event.attempt for event in seen.of(Complete)] == [3]


@pytest.mark.smoke
async def test_a_job_that_fails_for_the_last_time_becomes_a_dead_letter(url: str, name: str) -> None:
    seen = Seen()

    @job(name, num_attempts=2, backoff=0)
    async def hopeless(job: Job[str]) -> None:
        raise ValueError("no\nway")

    async with job_processor(url, on_event=seen) as p:
        await p.start(hopeless)
        await p.enqueue(hopeless, "payload", id="job-7", headers={"X-Mine": "kept"})
        await until_empty(p.js, name)
        letter = await p.js.get_last_msg("DEAD_LETTERS", f"dead_letters.{name}.{name}")
        await p.stop()

    assert [event.attempts_exhausted for event in seen.of(Error)] == [False, True]
    assert [event.reason for event in seen.of(DeadLettered)] == ["exhausted"]
    assert letter.data == codecs.MSGPACK.encode("payload")
    assert letter.headers is not None
    assert letter.headers["Nats-Jobs-Reason"] == "exhausted"
    assert letter.headers["Nats-Jobs-Error"] == "no way"
    assert letter.headers["Nats-Jobs-Error-Type"] == "ValueError"
    assert letter.headers["Nats-Jobs-Attempts"] == "2"
    assert letter.headers["Nats-Jobs-Stream"] == name
    assert letter.headers["Nats-Jobs-Sequence"] == "1"
    assert letter.headers["Nats-Jobs-Original-Id"] == "job-7"
    assert letter.headers["X-Mine"] == "kept"
    assert letter.headers["Nats-Msg-Id"] == f"{name}:1"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


async def test_an_error_that_cannot_be_printed_ends_no_worker(url: str, name: str) -> None:
    seen = Seen()

    @job(name, num_attempts=1)
    async def mute(job: Job[int]) -> None:
        if job.payload == 0:
            raise Unspeakable

    async with job_processor(url, on_event=seen) as p:
        await p.start(mute)
        await p.enqueue_many(mute, [0, 1])
        await until_empty(p.js, name)
        await p.stop()

    assert [event.error for event in seen.of(DeadLettered)] == ["its text cannot be had: RuntimeError"]
    assert len(seen.of(Complete)) == 1


async def test_what_a_handler_asks_for_inside_its_own_task_group_is_understood(url: str, name: str) -> None:
    seen = Seen()

    @job(name)
    async def grouped(job: Job[int]) -> None:
        async with anyio.create_task_group():
            raise Reject("from inside")

    async with job_processor(url, on_event=seen) as p:
        await p.start(grouped)
        await p.enqueue(grouped, 1)
        await until_empty(p.js, name)
        await p.stop()

    assert [(event.reason, event.error) for event in seen.of(DeadLettered)] == [("rejected", "from inside")]


async def test_without_dead_letters_an_exhausted_job_is_dropped(url: str, name: str) -> None:
    seen = Seen()

    @job(name, num_attempts=1, dead_letter=False)
    async def hopeless(job: Job[None]) -> None:
        raise ValueError

    async with job_processor(url, on_event=seen) as p:
        await p.start(hopeless)
        await p.enqueue(hopeless, None)
        await until_empty(p.js, name)
        await p.stop()

    assert [event.attempts_exhausted for event in seen.of(Error)] == [True]


async def test_retry_sets_its_own_delay_and_is_no_error(url: str, name: str) -> None:
    seen = Seen()
    attempts: list[int] = []

    @job(name, backoff=1000)
    async def later(job: Job[None]) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            raise Retry(delay=0.01)

    async with job_processor(url, on_event=seen) as p:
        await p.start(later)
        await p.enqueue(later, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1, 2]
    assert not seen.of(Error)


async def test_retry_uses_up_the_attempts(url: str, name: str) -> None:
    seen = Seen()

    @job(name, num_attempts=2)
    async def later(job: Job[None]) -> None:
        raise Retry(delay=0)

    async with job_processor(url, on_event=seen) as p:
        await p.start(later)
        await p.enqueue(later, None)
        await until_empty(p.js, name)
        await p.stop()

    assert [event.reason for event in seen.of(DeadLettered)] == ["exhausted"]


async def test_snoozing_never_exhausts_a_job(url: str, name: str) -> None:
    seen = Seen()
    attempts: list[int] = []

    @job(name, num_attempts=1)
    async def not_now(job: Job[None]) -> None:
        attempts.append(job.attempt)
        if job.attempt < 4:
            raise Snooze

    async with job_processor(url, on_event=seen) as p:
        await p.start(not_now)
        await p.enqueue(not_now, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1, 2, 3, 4]
    assert [event.reason for event in seen.of(Interrupted)] == ["snoozed"] * 3
    assert not seen.of(Error)
    assert not seen.of(DeadLettered)


@pytest.mark.smoke
async def test_reject_parks_a_job_at_once(url: str, name: str) -> None:
    seen = Seen()

    @job(name)
    async def never(job: Job[None]) -> None:
        raise Reject("no such customer")

    async with job_processor(url, on_event=seen) as p:
        await p.start(never)
        await p.enqueue(never, None)
        await until_empty(p.js, name)
        await p.stop()

    assert [(event.reason, event.error) for event in seen.of(DeadLettered)] == [
        ("rejected", "no such customer")
    ]


@pytest.mark.smoke
async def test_an_undecodable_payload_is_parked_without_calling_the_handler(url: str, name: str) -> None:
    seen = Seen()
    called: list[Any] = []

    @job(name, codec=codecs.JSON)
    async def keep(job: Job[Any]) -> None:
        called.append(job.payload)

    async with job_processor(url, on_event=seen) as p:
        await p.start(keep)
        async with connect(url) as outside:
            await outside.request(name, b"{not json")
            await outside.request(name, b"7")

        await until_empty(p.js, name)
        letter = await p.js.get_last_msg("DEAD_LETTERS", f"dead_letters.{name}.{name}")
        await p.stop()

    assert called == [7]
    assert [event.reason for event in seen.of(DeadLettered)] == ["undecodable"]
    assert letter.data == b"{not json"


@pytest.mark.smoke
async def test_a_timeout_cancels_one_job_and_the_next_ones_run_undisturbed(url: str, name: str) -> None:
    seen = Seen()
    reasons: list[CancelReason | None] = []
    completed: list[int] = []

    @job(name, timeout=0.2, num_attempts=1)
    async def first_is_slow(job: Job[int]) -> None:
        try:
            if job.payload == 0:
                await anyio.sleep(60)
        finally:
            reasons.append(job.reason)

        completed.append(job.payload)

    async with job_processor(url, on_event=seen) as p:
        await p.start(first_is_slow)
        for number in range(4):
            await p.enqueue(first_is_slow, number)

        await until_empty(p.js, name)
        await p.stop()

    assert reasons == [CancelReason.TIMEOUT, None, None, None]
    assert completed == [1, 2, 3]
    assert [event.timeout for event in seen.of(Timeout)] == [0.2]
    (error,) = seen.of(Error)
    assert isinstance(error.error, JobTimeout)
    assert error.attempts_exhausted


async def test_each_job_has_context_variables_of_its_own(url: str, name: str) -> None:
    before: list[int] = []

    @job(name, concurrency=2)
    async def change(job: Job[int]) -> None:
        before.append(variable.get())
        variable.set(job.payload)
        await anyio.sleep(0.01)
        assert variable.get() == job.payload
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)

        assert await anyio.to_thread.run_sync(variable.get) == job.payload

    async with job_processor(url) as p:
        await p.start(change)
        for number in range(1, 9):
            await p.enqueue(change, number)

        await until_empty(p.js, name)
        await p.stop()

    assert before == [0] * 8


async def test_a_plain_function_runs_in_a_thread(url: str, name: str) -> None:
    threads: list[str] = []

    @job(name, concurrency=2)
    def plain(job: Job[int]) -> None:
        threads.append(threading.current_thread().name)
        from_thread.run(anyio.sleep, 0)

    async with job_processor(url) as p:
        await p.start(plain)
        await p.enqueue_many(plain, range(4))
        await until_empty(p.js, name)
        await p.stop()

    assert len(threads) == 4
    assert threading.current_thread().name not in threads


@pytest.mark.smoke
async def test_no_more_than_concurrency_run_and_none_waits_unstarted(url: str, name: str) -> None:
    release = anyio.Event()
    running = peak = 0

    @job(name, concurrency=3)
    async def wait(job: Job[int]) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await release.wait()
        running -= 1

    async with job_processor(url) as p:
        handle = await p.start(wait)
        await p.enqueue_many(wait, range(10))
        await until(lambda: running == 3)
        info = await p.js.consumer_info(name, f"{name}Consumer")
        assert info.num_ack_pending == 3
        assert len(handle.running) == 3
        assert handle.statistics().waiting == 0
        release.set()
        await until_empty(p.js, name)
        await p.stop()

    assert peak == 3


async def test_events_tell_the_life_of_a_job(url: str, name: str) -> None:
    seen = Seen()

    @job(name, expected=0.001)
    async def work(job: Job[int]) -> None:
        await anyio.sleep(0.05)

    async with job_processor(url, on_event=seen) as p, p.events() as stream:
        await p.start(work)
        await p.enqueue(work, 1, id="first")
        await until_empty(p.js, name)
        await p.stop()
        streamed = [stream.receive_nowait() for _ in range(stream.pending)]

    (start,), (receive,), (complete,), (stop,) = (
        seen.of(Start),
        seen.of(Receive),
        seen.of(Complete),
        seen.of(Stop),
    )
    assert (start.stream, start.consumer, start.concurrency) == (name, f"{name}Consumer", 1)
    assert start.consumer_config.ack_wait == 10
    assert (receive.sequence, receive.attempt, receive.id, receive.subject) == (1, 1, "first", name)
    # uvloop counts in milliseconds, and may wake a little early.
    assert complete.duration >= 0.045
    assert complete.exceeded == pytest.approx(complete.duration - 0.001)
    assert stop.running == 0
    assert seen.of(Pull)[0].batch == 1
    assert [type(event) for event in seen.events[:4]] == [Connected, Start, Pull, Receive]
    assert streamed == seen.events[1:]


async def test_a_reader_that_only_counts_loses_no_event_of_many_short_jobs(url: str, name: str) -> None:
    count = 6000

    async def work(job: Job[int]) -> None:
        pass

    defn = JobDef(stream=name, perform=work, concurrency=100)
    async with job_processor(url) as p, p.events() as stream, anyio.create_task_group() as group:
        await p.start(defn)
        group.start_soon(p.enqueue_many, defn, range(count))
        completed = 0
        with anyio.fail_after(LIMIT):
            async for event in stream:
                completed += isinstance(event, Complete)
                if completed == count:
                    break

        await p.stop()


async def test_a_reader_that_is_too_slow_is_told_so_without_a_flood(caplog: Any) -> None:
    """One line for each event that is lost would be thousands a second."""
    emitter = Emitter()
    async with emitter.events() as stream:
        for number in range(4096 + 1500):
            emitter.emit(Connected(server="here", reconnects=number))

        assert stream.receive_nowait() == Connected(server="here", reconnects=0)

    counts = [record.args[1] for record in caplog.records if record.levelname == "WARNING"]
    assert counts == [1, 10, 100, 1000]


async def test_a_listener_that_fails_does_not_reach_a_job(url: str, name: str, caplog: Any) -> None:
    @job(name)
    async def work(job: Job[int]) -> None:
        pass

    def broken(event: object) -> None:
        raise RuntimeError("listener")

    async with job_processor(url, on_event=broken) as p:
        handle = await p.start(work)
        await p.enqueue(work, 1)
        await until_empty(p.js, name)
        await p.stop()

    assert handle.statistics().completed == 1
    assert "on_event failed" in caplog.text


@pytest.mark.smoke
async def test_a_delayed_job_waits_for_its_time(url: str, name: str) -> None:
    started: list[datetime] = []

    @job(name, num_attempts=1)
    async def work(job: Job[int]) -> None:
        started.append(datetime.now(UTC))

    async with job_processor(url) as p:
        await p.start(work)
        at = datetime.now(UTC) + timedelta(seconds=0.5)
        await p.enqueue(work, 1, at=at)
        await p.enqueue(work, 2)
        await until_empty(p.js, name)
        await p.stop()

    assert len(started) == 2
    assert started[0] < at <= started[1] + timedelta(milliseconds=5)


@pytest.mark.parametrize("text", ["soon", "", "2999-01-01", "2999-01-01T00:00:00"])
async def test_a_time_that_cannot_be_read_is_not_waited_for(url: str, name: str, text: str) -> None:
    """Without a time zone it is no time."""

    @job(name)
    async def work(job: Job[int]) -> None:
        pass

    async with job_processor(url) as p:
        handle = await p.start(work)
        await p.enqueue(work, 1, headers={"Nats-Jobs-Not-Before": text})
        await until_empty(p.js, name)
        await p.stop()

    assert handle.statistics().completed == 1


async def test_jobs_that_are_to_wait_for_ever_become_dead_letters_and_hold_up_no_other(
    url: str, name: str
) -> None:
    seen = Seen()
    done: list[object] = []

    @job(name, concurrency=50)
    async def keep(job: Job[object]) -> None:
        done.append(job.payload)

    async with job_processor(url, on_event=seen) as p:
        await p.start(keep)
        far = {"Nats-Jobs-Not-Before": "9999-12-31T23:59:59+00:00"}
        await p.enqueue_many(keep, range(20), headers=far)
        await p.enqueue(keep, "good")
        await until_empty(p.js, name)
        await p.stop()

    assert done == ["good"]
    parked = seen.of(DeadLettered)
    assert {event.reason for event in parked} == {"undecodable"}
    assert len(parked) == 20
    assert "beyond max_delay" in parked[0].error


async def test_more_delayed_jobs_than_a_consumer_of_others_may_have_in_hand_hold_up_no_other(
    url: str, name: str
) -> None:
    done: list[object] = []

    @job(name, concurrency=50)
    async def keep(job: Job[object]) -> None:
        done.append(job.payload)

    async with job_processor(url) as p:
        await p.start(keep)
        await p.enqueue_many(keep, range(1100), delay=3600)
        await p.enqueue(keep, "good")
        await until(lambda: done)
        await p.stop()

    assert done == ["good"]


async def test_a_delayed_job_has_all_its_attempts(url: str, name: str) -> None:
    """The delivery that was only for waiting is none of them."""
    performed = list[int]()

    @job(name, num_attempts=2, backoff=0)
    async def fail(job: Job[int]) -> None:
        performed.append(job.attempt)
        raise ValueError("again")

    async with job_processor(url) as p:
        await p.start(fail)
        await p.enqueue(fail, 1, delay=0.3)
        await until_empty(p.js, name)
        await p.stop()

    assert performed == [2, 3]


async def test_a_definition_can_be_stopped_and_started_again(url: str, name: str) -> None:
    got: list[int] = []

    @job(name)
    async def work(job: Job[int]) -> None:
        got.append(job.payload)

    async with job_processor(url) as p:
        for number in range(2):
            handle = await p.start(work)
            await p.enqueue(work, number)
            await until(partial(got.__contains__, number))
            await handle.stop()
            await handle.stop()
            await handle.wait_stopped()

    assert got == [0, 1]


async def test_leaving_the_block_waits_for_the_workers_as_a_nursery_does(url: str, name: str) -> None:
    done: list[int] = []

    @job(name)
    async def stop_after_three(job: Job[int]) -> None:
        done.append(job.payload)
        if len(done) == 3:
            job.processor.stop_soon()

    async with job_processor(url) as p:
        p.start_soon(stop_after_three)
        await p.enqueue_many(stop_after_three, range(3))

    assert sorted(done) == [0, 1, 2]


async def test_a_stopped_worker_leaves_no_subscription(url: str, name: str) -> None:
    @job(name, concurrency=3, consumer_config=ConsumerConfig(ack_wait=4))
    async def work(job: Job[int]) -> None: ...

    async with job_processor(url) as p:
        before = len(p.connection.lowlevel.subscriptions)
        handle = await p.start(work)
        await p.enqueue_many(work, range(50))
        await until_empty(p.js, name)
        assert len(p.connection.lowlevel.subscriptions) > before
        # Leases of 4 s are counted from moments that are no older than 0.4 s.
        assert p.connection.lowlevel.pulse.period <= 4 / 20
        await handle.stop()
        assert len(p.connection.lowlevel.subscriptions) == before


async def test_a_stop_from_inside_a_job_lets_it_end(url: str, name: str) -> None:
    ended: list[bool] = []

    @job(name)
    async def last_one(job: Job[None]) -> None:
        job.processor.stop_soon()
        await job.wait_stopping()
        await anyio.sleep(0.05)
        ended.append(job.stopping)

    async with job_processor(url) as p:
        p.start_soon(last_one)
        await p.enqueue(last_one, None)

    assert ended == [True]


async def test_a_stop_grace_without_end_waits_for_the_job(url: str, name: str) -> None:
    release = anyio.Event()
    ended: list[CancelReason | None] = []

    @job(name, stop_grace=math.inf)
    async def long(job: Job[None]) -> None:
        await release.wait()
        ended.append(job.reason)

    async with job_processor(url, stop_grace=0) as p:
        handle = await p.start(long)
        await p.enqueue(long, None)
        await until(lambda: handle.running)
        p.stop_soon()
        await anyio.sleep(0.05)
        release.set()

    assert ended == [None]


def test_a_definition_is_generic_in_its_payload() -> None:
    async def perform(job: Job[int]) -> None: ...

    defn: JobDef[int] = JobDef(stream="S", perform=perform)
    assert defn.is_async
