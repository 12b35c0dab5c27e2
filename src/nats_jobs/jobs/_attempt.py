"""One attempt: a delivery is decoded, performed in its scope, and comes to its ending.

Oban's executor in our terms: each step is small, and every way out is an `Ending`.
"""

from __future__ import annotations

import contextvars
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio

from ..codecs import RAW, Codec, by_content_type
from ..errors import DecodeError, JobTimeout, NatsJobsError, StrayCancellation
from ..events import Receive
from ..jetstream import Delivery
from ._endings import Ending, Rejected, Snoozed, ending_of
from ._fresh_context import in_context
from ._handlers import async_handler
from ._job import Job
from ._lease import Lease
from ._producer import NOT_BEFORE
from ._reasons import CancelReason
from ._reporter import Reporter
from ._settle import Settler

if TYPE_CHECKING:
    from ._worker import Worker

__all__ = ("Attempts",)


class Attempts:
    """Performs the jobs of one worker."""

    def __init__(self, worker: Worker[Any], settler: Settler, reporter: Reporter) -> None:
        self.running: dict[Lease, Job[Any]] = {}
        self._worker = worker
        self._settler = settler
        self._report = reporter
        self._handler = async_handler(worker.defn)
        self._longest_step = worker.site.ack_wait / 3
        self._timeout = worker.defn.timeout
        self._base_context = contextvars.copy_context()

    async def perform(self, lease: Lease) -> None:
        """See one delivery through: its ending is settled when this returns, or is left to the lease."""
        started = self._worker.clock()
        payload: Any
        try:
            payload = self._before(lease.delivery)
        except _Refused as refused:
            await self._settler.settle(lease, refused.ending, started)
            return

        job: Job[Any] = Job(self._worker, lease, payload)
        # In the books before it starts: a stop, or a loss, in this very moment must reach it.
        self.running[lease] = job
        try:
            ending = await self._run(job)
        except BaseException:
            # The scope around the worker is cancelled, the job was given up, or the program ends.
            del self.running[lease]
            self._settler.hand_back(lease, "the worker was cancelled", started)
            raise

        del self.running[lease]
        await self._settler.settle(lease, ending, started)

    def _before(self, delivery: Delivery) -> object:
        """Return the payload; raise when the handler is not to be called."""
        worker = self._worker
        self._report.job(Receive, delivery)
        if worker.site.limits.is_crash_loop(delivery.attempt):
            why = NatsJobsError(
                f"delivered {delivery.attempt} times without coming to an end; its workers seem to die of it"
            )
            raise _Refused(Rejected("crash-loop", why))

        if not delivery.has_headers:
            return self._decoded(worker.defn.decoder, delivery)

        _wait_for_its_time(delivery)
        content_type = delivery.headers.get("Content-Type")
        codec = worker.defn.decoder if content_type is None else by_content_type(content_type) or RAW
        return self._decoded(codec, delivery)

    def _decoded(self, codec: Codec, delivery: Delivery) -> object:
        try:
            return codec.decode(delivery.data)
        except DecodeError as error:
            raise _Refused(Rejected("undecodable", error)) from error

    async def _run(self, job: Job[Any]) -> Ending:
        """Call the handler in the job's scope and say how that ended.

        The `try` stands outside the scope on purpose: a handler's own task group may fail while it is
        being cancelled, and on Trio only the scope can take the cancellation out of that group.
        """
        returned = False
        error: Exception | None = None
        try:
            with job.scope:
                job.start_clock(self._timeout)
                await in_context(
                    self._base_context.copy(), self._handler(job), job, self._worker.clock, self._longest_step
                )
                returned = True
        except Exception as raised:
            if job.abandoned is not None:
                raise job.abandoned from raised

            error = raised
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() == -math.inf:
                raise

            # On asyncio: the handler awaited something that somebody else had cancelled.
            error = StrayCancellation(job.stream, job.sequence)

        return self._ending(job, returned, error)

    def _ending(self, job: Job[Any], returned: bool, error: Exception | None) -> Ending:
        reason = job.reason
        timeout = None
        if reason is CancelReason.TIMEOUT:
            timeout = JobTimeout(job.stream, job.sequence, self._timeout or 0.0)

        return ending_of(reason, returned, error, timeout)


class _Refused(Exception):
    """The handler is not called; `ending` is how the attempt ends instead."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


def _wait_for_its_time(delivery: Delivery) -> None:
    not_before = delivery.headers.get(NOT_BEFORE)
    if not_before is None:
        return

    try:
        wait = (datetime.fromisoformat(not_before) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return

    if wait > 0:
        raise _Refused(Snoozed(wait))
