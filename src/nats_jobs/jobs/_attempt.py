"""One attempt: a delivery is decoded, performed in its scope, and comes to its ending.

Oban's executor in our terms: each step is small, and every way out is an `Ending`.
"""

from __future__ import annotations

import contextvars
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from .._groups import text_of
from ..codecs import RAW, Codec, by_content_type
from ..errors import DecodeError, JobTimeout, Malformed, NatsJobsError, ProcessNotStarted, StrayCancellation
from ..events import Receive
from ..jetstream import Delivery
from ._emitter import logger
from ._endings import Ending, Rejected, Snoozed, ending_of
from ._fresh_context import in_context
from ._handlers import AsyncHandler
from ._job import Job
from ._lease import Lease
from ._not_before import seconds_to_wait
from ._reasons import CancelReason
from ._reporter import Reporter
from ._settle import Settler
from ._slots import Rest
from ._task_watch import TaskWatch, is_cancelled_from_around

if TYPE_CHECKING:
    from ._worker import Worker

__all__ = ("Attempts",)


class Attempts:
    """Performs the jobs of one worker."""

    def __init__(
        self, worker: Worker[Any], settler: Settler, reporter: Reporter, handler: AsyncHandler
    ) -> None:
        self.running: dict[Lease, Job[Any]] = {}
        self._worker = worker
        self._settler = settler
        self._report = reporter
        self._handler = handler
        self._longest_step = worker.site.ack_wait / 3
        self._timeout = worker.defn.timeout
        self._clock = worker.clock
        self._context = contextvars.copy_context()
        # AnyIO looks the running backend up for each scope that is made; the class is the same every time.
        self._scope_type = type(anyio.CancelScope())

    async def perform(self, lease: Lease, watch: TaskWatch) -> Rest | None:
        """See one delivery through: its ending is settled when this returns, or is left to the lease.

        When the handler has not left the task as it was, what is left to do is returned for another one.

        The `try` stands outside the job's scope on purpose: a handler's own task group may fail while it is
        being cancelled, and on Trio only the scope can take the cancellation out of that group.
        """
        started = self._clock()
        job: Job[Any]
        try:
            job = Job(self._worker, lease, self._before(lease.delivery), self._scope_type())
        except _Refused as refused:
            await self._settle(lease, refused.ending, started)
            return None

        returned = misnested = False
        inner: BaseException | None = None
        error: Exception | None = None
        # In the books before it starts: a stop, or a loss, in this very moment must reach it.
        self.running[lease] = job
        try:
            with job.scope:
                job.start_clock(self._timeout)
                try:
                    await in_context(
                        self._context.copy(), self._handler(job), job, self._clock, self._longest_step
                    )
                    returned = True
                except BaseException as raised:
                    inner = raised
                    raise
        except Exception as raised:
            error = self._unless_abandoned(job, raised)
            # The scope's own complaint: what the handler has opened inside of it is open still.
            misnested = isinstance(raised, RuntimeError) and raised is not inner
            if misnested:
                watch.close_scopes()

            returned = returned and not misnested
        except BaseException as raised:
            error = self._unless_cancelled(job, raised, started)
        finally:
            del self.running[lease]

        if returned and job.reason is None:
            self._settler.done(lease, started)
            return None

        ending = self._ending(job, returned, error)
        if misnested or watch.is_disturbed():
            return partial(self._settle, lease, ending, started)

        await self._settle(lease, ending, started)
        return None

    async def _settle(self, lease: Lease, ending: Ending, started: float) -> None:
        try:
            await self._settler.settle(lease, ending, started)
        except BaseException:
            # Cut off while it was being parked: nobody else would ever answer for it.
            self._settler.hand_back(lease, CancelReason.STOP.value, started)
            raise

    def _unless_abandoned(self, job: Job[Any], raised: Exception) -> Exception:
        """Return what the handler raised; raise on when the job was given up, or never reached its handler."""
        if isinstance(raised, ProcessNotStarted):
            self._settler.hand_back(job.lease, "process", self._clock())
            raise raised

        if job.abandoned is None:
            return raised

        raise job.abandoned from raised

    def _unless_cancelled(self, job: Job[Any], raised: BaseException, started: float) -> Exception:
        """Return an error for a cancellation that nobody asked for; else hand the job back and raise on.

        On asyncio a handler lets one out that awaits something which somebody else has cancelled.
        """
        stray = isinstance(raised, anyio.get_cancelled_exc_class())
        if stray and not is_cancelled_from_around():
            return StrayCancellation(job.stream, job.sequence)

        if not isinstance(raised, anyio.get_cancelled_exc_class()):
            logger.critical(
                "%r raised %s, which is not an Exception and ends the processor",
                job,
                type(raised).__qualname__,
            )

        # The worker is cancelled, or the program ends.
        self._settler.hand_back(job.lease, (job.reason or CancelReason.STOP).value, started)
        raise raised

    def _before(self, delivery: Delivery) -> object:
        """Return the payload; raise when the handler is not to be called."""
        worker = self._worker
        self._report.job(Receive, delivery)
        if worker.site.limits.is_crash_loop(delivery.attempt):
            why = NatsJobsError(
                f"delivered {delivery.attempt} times without coming to an end; it seems to kill its workers"
            )
            raise _Refused(Rejected("crash-loop", why))

        if not delivery.has_headers:
            return self._decoded(worker.defn.decoder, delivery)

        try:
            wait = seconds_to_wait(delivery, worker.defn.max_delay)
        except Malformed as error:
            raise _Refused(Rejected("undecodable", error)) from None

        if wait:
            raise _Refused(Snoozed(wait))

        # The second spelling is HTTP's habit; a client that copies a request's headers sends it.
        content_type = delivery.first_header(b"Content-Type") or delivery.first_header(b"content-type")
        return self._decoded(self._codec_for(content_type), delivery)

    def _codec_for(self, content_type: str | None) -> Codec:
        own = self._worker.defn.decoder
        if content_type is None or content_type == own.content_type:
            return own

        return by_content_type(content_type) or RAW

    def _decoded(self, codec: Codec, delivery: Delivery) -> object:
        try:
            return codec.decode(delivery.data)
        except KeyboardInterrupt:
            raise
        except DecodeError as error:
            raise _Refused(Rejected("undecodable", error)) from error
        except BaseException as error:
            # A codec of the user's: whatever it raises says that it cannot read this message.
            reason = f"{type(error).__qualname__}: {text_of(error)}"
            raise _Refused(Rejected("undecodable", DecodeError(codec.name, reason))) from error

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
