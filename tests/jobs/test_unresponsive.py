"""Jobs that do not end when they are told to: in the event loop, in a thread, in a process."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.js.api import ConsumerConfig

from nats_jobs import CancelReason, Job, JobDef, job, job_processor
from nats_jobs.errors import JobCutShort, JobNotResponding
from nats_jobs.events import Complete, DeadLettered, Error, LeaseLost, LoopBlocked, NotResponding
from support.in_process import fail_in_process, note_pid, sleep_in_process
from support.jobs import Seen, until, until_empty

pytestmark = pytest.mark.anyio


async def ignore_for_ever(job: Job[Any]) -> None:
    while True:
        try:
            await anyio.sleep(0.05)
        except anyio.get_cancelled_exc_class():
            # Give way, so that the rest of the program can go on.
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)


async def test_a_job_that_ignores_its_timeout_is_reported_and_keeps_its_slot(url: str, name: str) -> None:
    seen = Seen()
    release = anyio.Event()

    @job(name, timeout=0.1, num_attempts=1, consumer_config=ConsumerConfig(ack_wait=2))
    async def stubborn(job: Job[int]) -> None:
        if job.payload == 0:
            with job.shield(60):
                await release.wait()

    async with job_processor(url, on_event=seen, unresponsive_after=0.2) as p:
        handle = await p.start(stubborn)
        await p.enqueue_many(stubborn, [0, 1])
        (report,) = await seen.wait_for(NotResponding)
        assert len(handle.running) == 1
        assert not seen.of(Complete)
        # Looked at again and again, and told once.
        await anyio.sleep(0.5)
        release.set()
        await until_empty(p.js, name)
        await p.stop()

    assert report.reason == CancelReason.TIMEOUT.value == "timeout"
    assert report.seconds >= 0.2
    assert len(seen.of(NotResponding)) == 1


async def test_a_job_that_ignores_that_its_lease_is_lost_is_reported_too(url: str, name: str) -> None:
    """Nothing is in the books of leases any more; somebody has to look at the job all the same."""
    seen = Seen()
    release = anyio.Event()

    @job(name, auto_extend_ack_timeout=False, consumer_config=ConsumerConfig(ack_wait=1))
    async def stubborn(job: Job[None]) -> None:
        if job.attempt == 1:
            with job.shield(60):
                await release.wait()

    async with job_processor(url, on_event=seen, unresponsive_after=0.2) as p:
        handle = await p.start(stubborn)
        await p.enqueue(stubborn, None)
        (report,) = await seen.wait_for(NotResponding)
        assert report.reason == CancelReason.LEASE_LOST.value
        assert len(handle.running) == 1
        release.set()
        await until_empty(p.js, name)
        await p.stop()


async def test_with_fail_a_job_that_does_not_respond_ends_the_processor(url: str, name: str) -> None:
    defn = JobDef[Any](
        stream=name, perform=ignore_for_ever, timeout=0.1, consumer_config=ConsumerConfig(ack_wait=2)
    )
    with pytest.raises(JobNotResponding, match=f"{name}/1"):
        async with job_processor(url, on_unresponsive="fail", unresponsive_after=0.2) as p:
            await p.start(defn)
            await p.enqueue(defn, 1)


async def test_a_stop_does_not_wait_for_ever_for_a_job_that_ignores_it(url: str, name: str) -> None:
    defn = JobDef[Any](stream=name, perform=ignore_for_ever, consumer_config=ConsumerConfig(ack_wait=2))
    with pytest.raises(JobNotResponding, match=f"{name}/1"), anyio.fail_after(20):
        async with job_processor(url, give_up_after=0.3) as p:
            handle = await p.start(defn)
            await p.enqueue(defn, 1)
            await until(lambda: handle.running)
            await p.stop(grace=0)


async def test_a_thread_that_does_not_return_is_left_behind_after_the_last_deadline(
    url: str, name: str
) -> None:
    release = threading.Event()

    @job(name, consumer_config=ConsumerConfig(ack_wait=2))
    def stuck(job: Job[None]) -> None:
        release.wait(30)

    try:
        with pytest.raises(JobNotResponding), anyio.fail_after(20):
            async with job_processor(url, give_up_after=0.3) as p:
                handle = await p.start(stuck)
                await p.enqueue(stuck, None)
                await until(lambda: handle.running)
                await p.stop(grace=0)
    finally:
        release.set()


async def test_a_thread_reads_the_reason_and_may_end_by_it(url: str, name: str) -> None:
    seen = Seen()
    reasons: list[CancelReason | None] = []

    @job(name, timeout=0.2, num_attempts=1)
    def poll(job: Job[None]) -> None:
        try:
            while True:
                job.check_cancelled()
                time.sleep(0.01)
        except JobCutShort:
            reasons.append(job.reason)
            raise

    async with job_processor(url, on_event=seen) as p:
        await p.start(poll)
        await p.enqueue(poll, None)
        await until_empty(p.js, name)
        await p.stop()

    assert reasons == [CancelReason.TIMEOUT]
    assert [event.reason for event in seen.of(DeadLettered)] == ["exhausted"]


async def test_a_thread_keeps_its_lease_for_as_long_as_it_runs(url: str, name: str) -> None:
    attempts: list[int] = []

    @job(name, consumer_config=ConsumerConfig(ack_wait=1))
    def long(job: Job[None]) -> None:
        attempts.append(job.attempt)
        time.sleep(2.5)

    async with job_processor(url) as p:
        await p.start(long)
        await p.enqueue(long, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1]


async def test_what_a_thread_returns_after_its_lease_was_lost_is_not_settled(url: str, name: str) -> None:
    seen = Seen()
    attempts: list[int] = []
    second = threading.Event()

    @job(name, concurrency=2, auto_extend_ack_timeout=False, consumer_config=ConsumerConfig(ack_wait=1))
    def slow_once(job: Job[None]) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            second.wait(30)
        else:
            second.set()

    async with job_processor(url, on_event=seen) as p:
        await p.start(slow_once)
        await p.enqueue(slow_once, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1, 2]
    assert len(seen.of(LeaseLost)) == 1
    assert [event.attempt for event in seen.of(Complete)] == [2]


async def test_a_function_runs_in_a_process_of_its_own(url: str, name: str, tmp_path: Path) -> None:
    defn = JobDef[str](stream=name, perform=note_pid, run_in="process")
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, str(tmp_path / "pid"))
        await until_empty(p.js, name)
        await p.stop()

    pid, attempt, sequence = (tmp_path / "pid").read_text().split()
    assert int(pid) != os.getpid()
    assert (attempt, sequence) == ("1", "1")


async def test_what_a_process_raises_is_a_failure_like_any_other(url: str, name: str) -> None:
    seen = Seen()
    defn = JobDef[str](stream=name, perform=fail_in_process, run_in="process", num_attempts=1)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, "")
        await until_empty(p.js, name)
        await p.stop()

    assert [str(event.error) for event in seen.of(Error)] == ["in the other process"]


async def test_a_timeout_really_ends_a_process(url: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    defn = JobDef[str](stream=name, perform=sleep_in_process, run_in="process", timeout=2, num_attempts=1)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, str(file))
        await until_empty(p.js, name)
        await p.stop()

    # On a slow machine it may have been killed before it could write.
    await until(lambda: not file.exists() or not _alive(int(file.read_text())))


async def test_a_stop_really_ends_a_process(url: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    defn = JobDef[str](stream=name, perform=sleep_in_process, run_in="process")
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, str(file))
        await until(lambda: file.exists() and file.read_text())
        await p.stop(grace=0)

    await until(lambda: not _alive(int(file.read_text())))


async def test_a_job_that_holds_the_event_loop_is_named(url: str, name: str, caplog: Any) -> None:
    seen = Seen()

    @job(name, consumer_config=ConsumerConfig(ack_wait=1.5))
    async def block(job: Job[None]) -> None:
        time.sleep(0.7)  # noqa: ASYNC251

    async with job_processor(url, on_event=seen) as p:
        await p.start(block)
        await p.enqueue(block, None)
        await until_empty(p.js, name)
        await p.stop()

    (event,) = seen.of(LoopBlocked)
    assert (event.stream, event.sequence) == (name, 1)
    assert event.seconds >= 0.7
    assert "blocked the event loop" in caplog.text


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False

    # A process that has ended stays in the table until its parent has looked.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
