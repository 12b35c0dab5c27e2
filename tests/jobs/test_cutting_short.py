"""Stop, timeout, loss of the lease, and cancellation from around: each handler ends as the tables say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from nats.js.api import ConsumerConfig

from nats_jobs import CancelReason, Job, JobDef, Reject, Snooze, job, job_processor
from nats_jobs.errors import JobCutShort, JobTimeout
from nats_jobs.events import Complete, DeadLettered, Error, Interrupted, LeaseLost, Stop
from support.jobs import Seen, in_stream, until, until_empty
from support.loops import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

Handler = Callable[[Job[Any]], Awaitable[None]]


async def sleep_on(job: Job[Any]) -> None:
    await anyio.sleep_forever()


async def swallow(job: Job[Any]) -> None:
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        pass


async def raise_while_cancelled(job: Job[Any]) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        raise ValueError("while being cancelled")


async def fail_in_own_group(job: Job[Any]) -> None:
    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("a child failed while being cancelled")

    async with anyio.create_task_group() as group:
        group.start_soon(child)
        await anyio.sleep_forever()


async def finish_in_a_shield(job: Job[Any]) -> None:
    with job.shield():
        while job.reason is None:
            await anyio.sleep(0.01)


async def block_the_loop(job: Job[Any]) -> None:
    """Nothing can cancel it, and it never looks."""
    time.sleep(0.3)  # noqa: ASYNC251


IGNORANT = [swallow, finish_in_a_shield]
FAILING = [raise_while_cancelled, fail_in_own_group]


@pytest.mark.parametrize("handler", [sleep_on, block_the_loop, *IGNORANT, *FAILING])
async def test_after_its_timeout_a_job_has_failed_whatever_its_handler_does(
    url: str, name: str, handler: Handler
) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=handler, timeout=0.1, num_attempts=1)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until_empty(p.js, name)
        await p.stop()

    (error,) = seen.of(Error)
    assert isinstance(error.error, JobTimeout)
    assert not seen.of(Complete)
    assert [event.reason for event in seen.of(DeadLettered)] == ["exhausted"]


@pytest.mark.parametrize("handler", [sleep_on, *FAILING])
@pytest.mark.smoke
async def test_a_job_that_is_stopped_goes_back_and_loses_no_attempt(
    url: str, name: str, handler: Handler
) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=handler, num_attempts=1)
    async with job_processor(url, on_event=seen) as p:
        handle = await p.start(defn)
        await p.enqueue(defn, 1)
        await until(lambda: handle.running)
        await p.stop(grace=0)
        assert await in_stream(p.js, name) == 1
        info = await p.js.consumer_info(name, f"{name}Consumer")
        assert info.num_waiting == 0

    assert [event.reason for event in seen.of(Interrupted)] == ["stop"]
    assert not seen.of(Error)

    performed: list[int] = []

    @job(name, num_attempts=1)
    async def succeed(job: Job[int]) -> None:
        performed.append(job.attempt)

    async with job_processor(url) as p:
        await p.start(succeed)
        with anyio.fail_after(5):
            await until_empty(p.js, name)

        await p.stop()

    assert performed == [2]


async def test_a_job_that_is_stopped_on_its_last_delivery_becomes_a_dead_letter(url: str, name: str) -> None:
    """It would stay in its stream, and nobody would ever get it."""
    config = ConsumerConfig(max_deliver=1)
    defn = JobDef[Any](stream=name, perform=sleep_on, num_attempts=1, consumer_config=config)
    async with job_processor(url) as p:
        handle = await p.start(defn)
        await p.enqueue(defn, 1)
        await until(lambda: handle.running)
        await p.stop(grace=0)
        assert await in_stream(p.js, name) == 0
        assert [letter.reason async for letter in p.dead_letters.browse(stream=name)] == ["interrupted"]

    assert handle.statistics().dead_lettered == 1


async def test_the_first_reason_for_which_a_job_is_cut_short_counts(url: str, name: str) -> None:
    """A stop does not turn an attempt that took too long into one that was only interrupted."""
    seen = Seen()
    stopped = anyio.Event()

    @job(name, timeout=0.1, num_attempts=1)
    async def outlast(job: Job[Any]) -> None:
        with job.shield():
            await stopped.wait()

    async with job_processor(url, on_event=seen) as p:
        handle = await p.start(outlast)
        await p.enqueue(outlast, 1)
        await until(lambda: handle.running)
        [running] = handle.running
        await until(lambda: running.reason is CancelReason.TIMEOUT)
        p.stop_soon(grace=0)
        await anyio.sleep(0.1)
        assert running.reason is CancelReason.TIMEOUT
        stopped.set()

    assert not seen.of(Interrupted)
    assert [event.reason for event in seen.of(DeadLettered)] == ["exhausted"]


@pytest.mark.parametrize("handler", IGNORANT)
async def test_a_job_that_finishes_after_its_stop_is_done(url: str, name: str, handler: Handler) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=handler)
    async with job_processor(url, on_event=seen) as p:
        handle = await p.start(defn)
        await p.enqueue(defn, 1)
        await until(lambda: handle.running)
        await p.stop(grace=0)
        await until_empty(p.js, name)

    assert len(seen.of(Complete)) == 1


async def test_what_a_handler_asks_for_in_words_holds_also_while_it_is_stopped(url: str, name: str) -> None:
    seen = Seen()

    @job(name, concurrency=2)
    async def decide(job: Job[bool]) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise Reject("no") if job.payload else Snooze(0.01)

    async with job_processor(url, on_event=seen) as p:
        handle = await p.start(decide)
        await p.enqueue_many(decide, [True, False])
        await until(lambda: len(handle.running) == 2)
        await p.stop(grace=0)
        assert await in_stream(p.js, name) == 1

    assert [event.reason for event in seen.of(DeadLettered)] == ["rejected"]
    assert [event.reason for event in seen.of(Interrupted)] == ["snoozed"]


async def test_the_grace_lets_short_jobs_end_and_cuts_long_ones(url: str, name: str) -> None:
    seen = Seen()
    reasons: dict[str, CancelReason | None] = {}

    @job(name, concurrency=2)
    async def work(job: Job[str]) -> None:
        try:
            if job.payload == "long":
                await anyio.sleep_forever()

            await job.wait_stopping()
            assert job.reason is None
        finally:
            reasons[job.payload] = job.reason

    async with job_processor(url, on_event=seen, stop_grace=0.3) as p:
        handle = await p.start(work)
        await p.enqueue_many(work, ["short", "long"])
        await until(lambda: len(handle.running) == 2)
        await p.stop()
        assert await in_stream(p.js, name) == 1

    assert reasons == {"short": None, "long": CancelReason.STOP}
    assert seen.of(Stop)[0].running == 2


async def test_a_second_stop_can_only_shorten_the_grace(url: str, name: str) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=sleep_on)
    async with job_processor(url, on_event=seen, stop_grace=1000) as p:
        handle = await p.start(defn)
        await p.enqueue(defn, 1)
        await until(lambda: handle.running)
        async with anyio.create_task_group() as group:
            group.start_soon(p.stop)
            await until(lambda: handle.running[0].stopping)
            with anyio.fail_after(10):
                await p.stop(grace=0)

    assert len(seen.of(Stop)) == 1


async def test_a_later_stop_cannot_prolong_the_grace(url: str, name: str) -> None:
    async with job_processor(url) as p:
        handle = await p.start(JobDef[Any](stream=name, perform=sleep_on))
        await p.enqueue(name, 1)
        await until(lambda: handle.running)
        p.stop_soon(grace=0.1)
        with anyio.fail_after(20):
            await p.stop(grace=3600)


async def test_the_scope_around_a_processor_cancels_its_jobs_and_hands_them_back(url: str, name: str) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=sleep_on, concurrency=3)
    with anyio.CancelScope() as scope:
        async with job_processor(url, on_event=seen) as p:
            handle = await p.start(defn)
            await p.enqueue_many(defn, range(5))
            await until(lambda: len(handle.running) == 3)
            scope.cancel("enough")

    assert scope.cancelled_caught
    assert len(seen.of(Interrupted)) == 3

    attempts: dict[int, int] = {}

    @job(name)
    async def note(job: Job[int]) -> None:
        attempts[job.payload] = job.attempt

    async with job_processor(url) as p:
        await p.start(note)
        # Well below ack_wait (10 s): they were handed back, and have not run out.
        with anyio.fail_after(8):
            await until_empty(p.js, name)

        await p.stop()

    assert attempts == {0: 2, 1: 2, 2: 2, 3: 1, 4: 1}


async def test_a_job_knows_why_when_the_scope_around_its_processor_is_cancelled(url: str, name: str) -> None:
    told: list[CancelReason | None] = []

    @job(name, concurrency=2)
    async def work(job: Job[int]) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            told.append(job.reason)

    with anyio.fail_after(10), anyio.CancelScope() as scope:
        async with job_processor(url) as p:
            handle = await p.start(work)
            await p.enqueue_many(work, [1, 2])
            await until(lambda: len(handle.running) == 2)
            scope.cancel("enough")

    assert told == [CancelReason.STOP, CancelReason.STOP]


async def test_a_shielded_job_is_told_that_the_scope_around_its_processor_is_cancelled(
    url: str, name: str
) -> None:
    """No worker was told to stop, and the cancellation itself cannot reach it."""
    told: list[CancelReason | None] = []

    @job(name)
    async def shielded(job: Job[int]) -> None:
        with job.shield():
            started.set()
            await job.wait_stopping()
            told.append(job.reason)

        await anyio.sleep_forever()

    started = anyio.Event()
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        async with job_processor(url) as p:
            await p.start(shielded)
            await p.enqueue(shielded, 1)
            await started.wait()
            scope.cancel("enough")

    assert told == [CancelReason.STOP]


async def test_an_exception_in_the_block_ends_the_workers_and_comes_out_as_itself(
    url: str, name: str
) -> None:
    defn = JobDef[Any](stream=name, perform=sleep_on)
    with pytest.raises(KeyError, match="mine"):
        async with job_processor(url) as p:
            handle = await p.start(defn)
            await p.enqueue(defn, 1)
            await until(lambda: handle.running)
            raise KeyError("mine")


@pytest.mark.smoke
async def test_a_lost_lease_cancels_the_job_before_the_server_delivers_it_again(url: str, name: str) -> None:
    seen = Seen()
    lost: list[tuple[int, CancelReason | None]] = []
    starts: list[int] = []

    @job(name, auto_extend_ack_timeout=False, consumer_config=ConsumerConfig(ack_wait=1.0), concurrency=2)
    async def too_long(job: Job[None]) -> None:
        starts.append(job.attempt)
        if job.attempt == 1:
            try:
                await anyio.sleep_forever()
            finally:
                lost.append((len(starts), job.reason))

    async with job_processor(url, on_event=seen) as p:
        await p.start(too_long)
        await p.enqueue(too_long, None)
        await until_empty(p.js, name)
        await p.stop()

    assert lost == [(1, CancelReason.LEASE_LOST)]
    assert starts == [1, 2]
    assert len(seen.of(LeaseLost)) == 1
    assert [event.attempt for event in seen.of(Complete)] == [2]


@pytest.mark.smoke
async def test_a_kept_lease_lasts_longer_than_ack_wait(url: str, name: str) -> None:
    attempts: list[int] = []

    @job(name, consumer_config=ConsumerConfig(ack_wait=1.0))
    async def long(job: Job[None]) -> None:
        attempts.append(job.attempt)
        await anyio.sleep(2.5)

    async with job_processor(url) as p:
        await p.start(long)
        await p.enqueue(long, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1]


async def test_a_handler_that_asks_after_a_pause_learns_that_its_lease_is_used_up(
    url: str, name: str
) -> None:
    """Before it waits for anything: the process was paused in the middle of a step, and nobody has looked yet."""
    reasons: list[CancelReason | None] = []

    async def pause(job: Job[Any]) -> None:
        if job.attempt > 1:
            return

        time.sleep(1.5)  # noqa: ASYNC251
        with pytest.raises(JobCutShort):
            job.check_cancelled()

        reasons.append(job.reason)

    defn = JobDef[Any](stream=name, perform=pause, consumer_config=ConsumerConfig(ack_wait=1))
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until_empty(p.js, name)
        await p.stop()

    assert reasons == [CancelReason.LEASE_LOST]


async def test_a_handler_that_blocks_the_event_loop_past_its_lease_is_not_settled(
    url: str, name: str
) -> None:
    seen = Seen()
    attempts: list[int] = []

    @job(name, consumer_config=ConsumerConfig(ack_wait=1.0))
    async def block(job: Job[None]) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            time.sleep(1.5)  # noqa: ASYNC251

    async with job_processor(url, on_event=seen) as p:
        await p.start(block)
        await p.enqueue(block, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1, 2]
    assert len(seen.of(LeaseLost)) == 1
    assert [event.attempt for event in seen.of(Complete)] == [2]


@pytest.mark.parametrize("error", [ValueError("too late"), Reject("too late")])
async def test_what_a_handler_raises_after_its_lease_is_used_up_counts_for_nothing(
    url: str, name: str, error: Exception
) -> None:
    """Another worker has the job by now: it must not be parked, nor said to have failed."""
    seen = Seen()

    @job(name, num_attempts=1, consumer_config=ConsumerConfig(ack_wait=1.0))
    async def block(job: Job[None]) -> None:
        if job.attempt == 1:
            time.sleep(1.5)  # noqa: ASYNC251
            raise error

    async with job_processor(url, on_event=seen) as p:
        handle = await p.start(block)
        await p.enqueue(block, None)
        await until_empty(p.js, name)
        assert await p.dead_letters.count(stream=name) == 0
        await p.stop()

    assert handle.statistics().failed == 0
    assert len(seen.of(LeaseLost)) == 1
    assert not seen.of(Error)
    assert [event.attempt for event in seen.of(Complete)] == [2]


async def test_working_extends_the_lease_by_hand(url: str, name: str) -> None:
    attempts: list[int] = []

    @job(name, consumer_config=ConsumerConfig(ack_wait=1.0), auto_extend_ack_timeout=False)
    async def by_hand(job: Job[None]) -> None:
        attempts.append(job.attempt)
        for _ in range(10):
            await anyio.sleep(0.2)
            await job.working()

    async with job_processor(url) as p:
        await p.start(by_hand)
        await p.enqueue(by_hand, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_from_elsewhere_is_a_failure_of_the_job_not_of_the_worker(
    url: str, name: str
) -> None:
    seen = Seen()

    @job(name, num_attempts=1)
    async def stray(job: Job[None]) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with job_processor(url, on_event=seen) as p:
        await p.start(stray)
        await p.enqueue_many(stray, [None, None])
        await until_empty(p.js, name)
        await p.stop()

    assert len(seen.of(Error)) == 2
