"""A handler is called in a test without a server: with all that a job is, on each backend."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from nats_jobs import CancelReason, DetachedJob, Job, JobDef, Retry, codecs, job
from nats_jobs.errors import BadSubject, EncodeError, JobCutShort, JobTimeout, UsageError
from nats_jobs.testing import fake_job
from support.virtual_time import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio


@job("ORDERS", num_attempts=3)
async def ship(job: Job[dict[str, Any]]) -> str:
    if job.attempt < job.num_attempts:
        raise Retry(delay=5)

    return f"shipped {job.payload['order']}"


async def test_a_handler_returns_and_raises_as_it_does() -> None:
    assert await fake_job(ship, {"order": 7}, attempt=3).perform() == "shipped 7"
    with pytest.raises(Retry):
        await fake_job(ship, {"order": 7}).perform()


async def test_a_handler_is_called_directly_with_a_job_too() -> None:
    perform: Any = ship.perform
    assert await perform(fake_job(ship, {"order": 7}, attempt=3)) == "shipped 7"


def test_a_job_can_be_made_where_no_event_loop_runs() -> None:
    assert fake_job(ship, {"order": 7}).payload == {"order": 7}


def test_it_is_what_the_worker_of_its_definition_would_be_given() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    made = fake_job(
        ship, {"order": (1, 2)}, attempt=2, id="x", headers={"a": "b"}, sequence=9, enqueued_at=at, pending=4
    )
    assert made.payload == {"order": [1, 2]}
    assert codecs.MSGPACK.decode(made.data) == made.payload
    assert (made.id, made.headers["a"], made.sequence, made.attempt) == ("x", "b", 9, 2)
    assert (made.stream, made.subject, made.pending, made.enqueued_at) == ("ORDERS", "ORDERS", 4, at)
    assert (made.fence, made.num_attempts, made.defn) == ((9, 2), 3, ship)
    assert made.reason is None
    assert not made.stopping


@pytest.mark.parametrize("wrong", [{"attempt": 0}, {"attempt": True}, {"sequence": 0}, {"pending": -1}])
def test_a_message_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        fake_job(ship, {}, **wrong)


def test_what_enqueue_refuses_is_refused() -> None:
    with pytest.raises(EncodeError):
        fake_job(ship, object())

    with pytest.raises(BadSubject):
        fake_job(ship, {}, subject="a b")

    with pytest.raises(UsageError, match="not a JobDef"):
        fake_job(print, {})  # type: ignore[arg-type]


async def test_the_timeout_of_the_definition_counts() -> None:
    seen: list[CancelReason | None] = []

    @job("ORDERS", timeout=60)
    async def slow(job: Job[str]) -> None:
        try:
            await anyio.sleep(3600)
        finally:
            seen.append(job.reason)

    with pytest.raises(JobTimeout):
        await fake_job(slow, "x").perform()

    assert seen == [CancelReason.TIMEOUT]


async def test_a_handler_that_returns_after_its_timeout_was_too_late() -> None:
    @job("ORDERS", timeout=60)
    async def late(job: Job[str]) -> None:
        with job.shield(100):
            await anyio.sleep(90)

    with pytest.raises(JobTimeout):
        await fake_job(late, "x").perform()


async def test_a_shield_lets_what_is_in_it_finish() -> None:
    done: list[str] = []

    @job("ORDERS")
    async def careful(job: Job[str]) -> None:
        with job.shield():
            await anyio.sleep(2)
            done.append("in the shield")

        await checkpoint()
        done.append("after it")

    made = fake_job(careful, "x")
    async with anyio.create_task_group() as group:
        group.start_soon(_cut_short_after, 1, made.cut_short)
        with pytest.raises(JobCutShort, match="stopping"):
            await made.perform()

    assert done == ["in the shield"]
    assert made.reason is CancelReason.STOP


async def test_a_handler_that_ends_when_told_to_stop_returns() -> None:
    @job("ORDERS")
    async def polite(job: Job[str]) -> str:
        await job.wait_stopping()
        return f"stopping: {job.stopping}"

    made = fake_job(polite, "x")
    made.stop()
    assert await made.perform() == "stopping: True"


async def test_what_a_handler_reports_and_asks_for_is_there_to_look_at() -> None:
    @job("ORDERS")
    async def talkative(job: Job[str]) -> None:
        await job.progress(1, 2)
        await job.progress(2)
        await job.working()

    made = fake_job(talkative, "x")
    await made.perform()
    assert made.reported == ((1, 2), (2, None))
    assert made.extensions == 1


async def test_a_plain_handler_runs_in_a_thread_and_one_for_processes_is_given_a_detached_job() -> None:
    def in_thread(job: Job[str]) -> str:
        job.check_cancelled()
        return threading.current_thread().name

    assert await fake_job(JobDef(stream="ORDERS", perform=in_thread), "x").perform() != "MainThread"
    assert await fake_job(IN_PROCESS, "x").perform() == "x"


async def test_a_handler_that_enqueues_is_given_a_processor() -> None:
    @job("ORDERS")
    async def follow_up(job: Job[str]) -> None:
        await job.processor.enqueue("MAILS", job.payload)

    mails = Mails()
    await fake_job(follow_up, "x", processor=mails).perform()
    assert mails.enqueued == [("MAILS", "x")]
    with pytest.raises(UsageError, match="processor=…"):
        await fake_job(follow_up, "x").perform()


class Mails:
    def __init__(self) -> None:
        self.enqueued: list[tuple[str, str]] = []

    async def enqueue(self, target: str, payload: str) -> None:
        self.enqueued.append((target, payload))


def detached(job: DetachedJob[str]) -> str:
    assert isinstance(job, DetachedJob)
    return job.payload


IN_PROCESS = JobDef(stream="ORDERS", perform=detached, run_in="process")


async def _cut_short_after(seconds: float, cut_short: Any) -> None:
    await anyio.sleep(seconds)
    cut_short()
