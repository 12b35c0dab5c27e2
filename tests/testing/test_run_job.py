"""One attempt in a test ends as it would at a worker, on each backend, in virtual time and without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from nats_jobs import CancelReason, Job, JobDef, Middleware, Reject, Retry, Snooze, events, job
from nats_jobs.errors import DecodeError, JobTimeout, UsageError
from nats_jobs.testing import run_job
from support.virtual_time import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@job("ORDERS", num_attempts=3, backoff=[HOUR, 2 * HOUR], timeout=2 * HOUR)
async def ship(job: Job[dict[str, Any]]) -> None:
    await anyio.sleep(job.payload.get("sleep", 0))
    match job.payload["what"]:
        case "fail":
            raise ConnectionError("no carrier")
        case "retry":
            raise Retry(delay=7)
        case "snooze":
            raise Snooze(8)
        case "reject":
            raise Reject("no such order")


async def test_a_handler_that_returns_has_completed_its_job() -> None:
    outcome = await run_job(ship, {"what": "ship", "sleep": HOUR})
    assert (outcome.kind, outcome.delay, outcome.error, outcome.reason) == ("completed", None, None, None)
    (complete,) = [event for event in outcome.events if isinstance(event, events.Complete)]
    assert complete.duration == pytest.approx(HOUR)


@pytest.mark.parametrize(("attempt", "delay"), [(1, HOUR), (2, 2 * HOUR)])
async def test_a_failure_is_tried_again_after_the_backoff(attempt: int, delay: float) -> None:
    outcome = await run_job(ship, {"what": "fail"}, attempt=attempt)
    assert (outcome.kind, outcome.delay, outcome.reason) == ("retried", delay, None)
    assert isinstance(outcome.error, ConnectionError)


async def test_the_last_failure_makes_a_dead_letter() -> None:
    outcome = await run_job(ship, {"what": "fail"}, attempt=3)
    assert (outcome.kind, outcome.delay, outcome.reason) == ("dead_lettered", None, "exhausted")
    assert isinstance(outcome.error, ConnectionError)


async def test_what_a_handler_asks_for_is_done() -> None:
    retried = await run_job(ship, {"what": "retry"})
    assert (retried.kind, retried.delay) == ("retried", 7)
    snoozed = await run_job(ship, {"what": "snooze"}, attempt=3)
    assert (snoozed.kind, snoozed.delay, snoozed.error) == ("snoozed", 8, None)
    rejected = await run_job(ship, {"what": "reject"})
    assert (rejected.kind, rejected.reason) == ("dead_lettered", "rejected")
    assert isinstance(rejected.error, Reject)


async def test_a_job_past_its_timeout_has_failed() -> None:
    outcome = await run_job(ship, {"what": "ship", "sleep": 3 * HOUR})
    assert (outcome.kind, outcome.delay) == ("retried", HOUR)
    assert isinstance(outcome.error, JobTimeout)


async def test_a_stop_gives_the_job_back_after_the_grace() -> None:
    reasons: list[CancelReason | None] = []

    @job("ORDERS", stop_grace=20)
    async def endless(job: Job[str]) -> None:
        await job.wait_stopping()
        stopped_at = anyio.current_time()
        try:
            await anyio.sleep_forever()
        finally:
            assert anyio.current_time() - stopped_at == pytest.approx(20)
            reasons.append(job.reason)

    outcome = await run_job(endless, "x", stop_after=5)
    assert (outcome.kind, outcome.delay, outcome.error) == ("interrupted", 0, None)
    assert reasons == [CancelReason.STOP]


async def test_a_job_that_ends_within_the_grace_is_completed() -> None:
    @job("ORDERS")
    async def polite(job: Job[str]) -> None:
        await job.wait_stopping()

    assert (await run_job(polite, "x", stop_after=5)).kind == "completed"


async def test_a_cancelled_job_does_not_come_again() -> None:
    outcome = await run_job(ship, {"what": "ship", "sleep": HOUR}, cancel_after=1)
    assert (outcome.kind, outcome.delay) == ("cancelled", None)


async def test_a_job_whose_lease_is_lost_is_somebody_elses() -> None:
    outcome = await run_job(ship, {"what": "ship", "sleep": HOUR}, lose_lease_after=1)
    assert (outcome.kind, outcome.delay) == ("lost", None)


async def test_without_extensions_a_long_job_loses_its_lease() -> None:
    @job("ORDERS", auto_extend_ack_timeout=False)
    async def long(job: Job[str]) -> None:
        await anyio.sleep(HOUR)

    assert (await run_job(long, "x")).kind == "lost"


async def test_what_a_codec_of_the_definition_cannot_decode_is_a_dead_letter() -> None:
    outcome = await run_job(JobDef(stream="ORDERS", perform=ship.perform, codec=Unreadable()), b"x")
    assert (outcome.kind, outcome.reason) == ("dead_lettered", "undecodable")
    assert isinstance(outcome.error, DecodeError)


class Unreadable:
    name = "unreadable"
    content_type = "application/x-unreadable"

    def encode(self, value: Any) -> bytes:
        return bytes(value)

    def decode(self, data: bytes) -> Any:
        raise ValueError("what is this?")


async def test_middleware_goes_around_the_attempt() -> None:
    outcome = await run_job(ship, {"what": "fail"}, middleware=[Forgiving()])
    assert outcome.kind == "completed"


class Forgiving(Middleware):
    @asynccontextmanager
    async def around_attempt(self, job: Job[Any]) -> AsyncIterator[None]:
        try:
            yield
        except ConnectionError:
            pass


async def test_progress_is_there_to_look_at() -> None:
    @job("ORDERS")
    async def talkative(job: Job[str]) -> None:
        await job.progress(1, 2)
        await job.working()

    assert (await run_job(talkative, "x")).reported == ((1, 2),)


class Leave(BaseException):
    """Not an Exception."""


async def test_what_ends_a_processor_is_raised() -> None:
    @job("ORDERS")
    async def leave(job: Job[str]) -> None:
        raise Leave

    with pytest.raises(Leave):
        await run_job(leave, "x")


async def test_a_cancellation_around_it_ends_it() -> None:
    with anyio.move_on_after(60) as scope:
        await run_job(ship, {"what": "ship", "sleep": HOUR})

    assert scope.cancelled_caught


async def test_a_job_that_leaves_its_task_changed_is_settled_all_the_same() -> None:
    @job("ORDERS")
    async def untidy(job: Job[str]) -> None:
        anyio.CancelScope().__enter__()

    assert (await run_job(untidy, "x")).kind == "retried"


async def test_a_plain_handler_runs_in_a_thread() -> None:
    def in_thread(job: Job[str]) -> None:
        job.check_cancelled()

    assert (await run_job(JobDef(stream="ORDERS", perform=in_thread), "x")).kind == "completed"


async def test_times_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="stop_after"):
        await run_job(ship, {"what": "ship"}, stop_after=-1)
