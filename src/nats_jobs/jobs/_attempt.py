"""One attempt: a delivery is decoded, performed in its scope, and comes to its ending.

Oban's executor in our terms: each step is small, and every way out is an `Ending`.
"""

from __future__ import annotations

import contextvars
import json
import math
from collections.abc import Awaitable
from functools import partial
from threading import get_ident
from typing import Any, Protocol

import anyio

from .._clock import Clock
from ..errors import JobNotResponding, JobTimeout, ProcessNotStarted, StrayCancellation
from ..events import LoopBlocked, Receive
from ..jetstream import Delivery
from ..wire import Connection
from ._bound_consumer import BoundConsumer
from ._coroutine_driver import drive
from ._emitter import logger
from ._endings import Ending, ending_of
from ._handlers import AsyncHandler
from ._job import Job, JobWorker
from ._lease import Lease
from ._lease_keeper import LeaseKeeper
from ._not_before import was_delayed
from ._payload import Refused, payload_of
from ._reasons import CancelReason
from ._reporter import Reporter
from ._settle import Settler
from ._slots import Rest
from ._task_watch import TaskWatch, is_cancelled_from_around

__all__ = ("Attempt", "Attempts")


class AttemptWorker(JobWorker, Protocol):
    """What an attempt asks of the engine that it belongs to."""

    @property
    def consumer(self) -> BoundConsumer: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def connection(self) -> Connection: ...

    @property
    def leases(self) -> LeaseKeeper: ...

    @property
    def thread(self) -> int: ...

    def gave_way(self) -> None:
        """A handler waits for the first time: another job may start."""


class Attempts:
    """The attempts of one worker that are under way, and what they have in common."""

    def __init__(
        self, worker: AttemptWorker, settler: Settler, reporter: Reporter, handler: AsyncHandler
    ) -> None:
        self.running: dict[Lease, Attempt] = {}
        self.worker = worker
        self.settler = settler
        self.report = reporter
        self.handler = handler
        self.longest_step = worker.consumer.ack_wait / 3
        self.timeout = worker.defn.timeout
        self.clock = worker.clock
        self.context = contextvars.copy_context()
        # AnyIO looks the running backend up for each scope that is made; the class is the same every time.
        self.new_scope = type(anyio.CancelScope())

    def under_way(self) -> tuple[Attempt, ...]:
        return tuple(self.running.values())

    def perform(self, lease: Lease, watch: TaskWatch) -> Awaitable[Rest | None]:
        """See one delivery through, as `Attempt.run` does."""
        return Attempt(self, lease).run(watch)


class Attempt:
    """One delivery in hand, from its decoding until its ending is settled.

    It is what its `Job` shows to the handler, the listener to each step of the handler, and what the worker holds.
    """

    __slots__ = (
        "_attempts",
        "_misnested",
        "_reason",
        "_returned",
        "_scope",
        "_started",
        "_times_out_at",
        "abandoned",
        "job",
        "lease",
        "worker",
    )

    job: Job[Any]
    """While it is being performed."""

    def __init__(self, attempts: Attempts, lease: Lease) -> None:
        self.lease = lease
        self.abandoned: JobNotResponding | None = None
        self._attempts = attempts
        self.worker = attempts.worker
        self._scope: anyio.CancelScope = attempts.new_scope()
        self._started = attempts.clock()
        self._times_out_at = math.inf
        self._reason: CancelReason | None = None
        self._returned = False
        self._misnested = False

    async def run(self, watch: TaskWatch) -> Rest | None:
        """See the delivery through: its ending is settled when this returns, or is left to the lease.

        When the handler has not left the task as it was, what is left to do is returned for another one.
        """
        worker = self.worker
        self._attempts.report.job(Receive, self.delivery)
        try:
            self.job = Job(payload_of(self.delivery, worker.defn, worker.consumer.limits), self)
        except Refused as refused:
            await self._settle(refused.ending)
            return None

        error = await self._perform(watch)
        if self._returned and self.reason is None:
            self._attempts.settler.done(self.lease, self._started)
            return None

        ending = self._ending(error)
        if self._misnested or watch.is_disturbed():
            return partial(self._settle, ending)

        await self._settle(ending)
        return None

    # Performing...

    async def _perform(self, watch: TaskWatch) -> Exception | None:
        """Call the handler, and return what it raised.

        The `try` stands outside the job's scope on purpose: a handler's own task group may fail while it is
        being cancelled, and on Trio only the scope can take the cancellation out of that group.
        """
        attempts = self._attempts
        inner: BaseException | None = None
        # Recorded before it starts: a stop, or a loss, in this very moment must reach it.
        attempts.running[self.lease] = self
        try:
            with self._scope:
                self._start_timeout()
                try:
                    await drive(
                        attempts.context.copy(),
                        attempts.handler(self.job, self),
                        self,
                        attempts.clock,
                        attempts.longest_step,
                    )
                    self._returned = True
                except BaseException as raised:
                    inner = raised
                    raise
        except Exception as raised:
            # The scope's own error: what the handler has opened inside of it is open still.
            self._misnested = isinstance(raised, RuntimeError) and raised is not inner
            error = self._unless_abandoned(raised)
            if self._misnested:
                self._returned = False

            return error
        except BaseException as raised:
            return self._unless_cancelled(raised)
        finally:
            del attempts.running[self.lease]
            # The job knows its attempt: without this, each would be left to the garbage collector.
            del self.job

        return None

    def _start_timeout(self) -> None:
        timeout = self._attempts.timeout
        if timeout is not None:
            self._times_out_at = self._scope.deadline = anyio.current_time() + timeout

    def _unless_abandoned(self, raised: Exception) -> Exception:
        """Return what the handler raised; raise on when the job was given up, or never reached its handler."""
        if isinstance(raised, ProcessNotStarted):
            self._attempts.settler.hand_back(self.lease, "process", self._attempts.clock())
            raise raised

        if self.abandoned is None:
            return raised

        raise self.abandoned from raised

    def _unless_cancelled(self, raised: BaseException) -> Exception:
        """Return an error for a cancellation that nobody asked for; else hand the job back and raise on.

        On asyncio a handler lets one out that awaits something which somebody else has cancelled.
        """
        stray = isinstance(raised, anyio.get_cancelled_exc_class())
        if stray and not is_cancelled_from_around():
            return StrayCancellation(self.delivery.stream, self.delivery.sequence)

        if not stray:
            logger.critical(
                "%r raised %s, which is not an Exception and ends the processor",
                self.job,
                type(raised).__qualname__,
            )

        # The worker is cancelled, or the program ends.
        self._attempts.settler.hand_back(self.lease, (self.reason or CancelReason.STOP).value, self._started)
        raise raised

    # Coming to an end...

    def _ending(self, error: Exception | None) -> Ending:
        reason = self.reason
        timeout = None
        if reason is CancelReason.TIMEOUT:
            timeout = JobTimeout(self.delivery.stream, self.delivery.sequence, self._attempts.timeout or 0.0)

        return ending_of(reason, self._returned, error, timeout)

    async def _settle(self, ending: Ending) -> None:
        try:
            await self._attempts.settler.settle(self.lease, ending, self._started)
        except BaseException:
            # Cut off while it was being parked: nobody else would ever answer for it.
            self._attempts.settler.hand_back(self.lease, CancelReason.STOP.value, self._started)
            raise

    # What the worker may do to it...

    def cut_short(self, reason: CancelReason) -> None:
        """Cancel the scope. A deadline that has already fired is a reason too, and came first."""
        if self.reason is None:
            self._reason = reason
            self._scope.deadline = math.inf
            self._scope.cancel(reason.text)

    def abandon(self, error: JobNotResponding) -> None:
        """Give it up: `error` is raised in its place as soon as that is possible."""
        self.abandoned = error

    # What its handler is told (`JobControl`)...

    @property
    def delivery(self) -> Delivery:
        return self.lease.delivery

    @property
    def num_attempts(self) -> int:
        return self.worker.consumer.limits.last_attempt(delayed=was_delayed(self.delivery))

    @property
    def reason(self) -> CancelReason | None:
        if self._reason is None and self._timed_out():
            return CancelReason.TIMEOUT

        return self._reason

    def _timed_out(self) -> bool:
        if self._times_out_at == math.inf:
            return False

        # Not only when the scope was cancelled for it: a handler that blocks the event loop past its timeout is
        # late, although nothing could cancel it.
        return self._attempts.clock() >= self._times_out_at or self._cancel_called()

    def _cancel_called(self) -> bool:
        try:
            return self._scope.cancel_called
        except RuntimeError:
            # Trio answers this in its own thread only; here a handler asks in another.
            return False

    def check_lease(self) -> None:
        if get_ident() == self.worker.thread:
            self.before_step(self._attempts.clock())

    async def extend_lease(self) -> None:
        await self.worker.leases.extend(self.lease)

    async def publish_progress(self, done: float, total: float | None) -> None:
        consumer, delivery = self.worker.consumer, self.delivery
        subject = f"nats_jobs.progress.{delivery.stream}.{consumer.name}.{delivery.sequence}"
        facts = {"done": done, "total": total, "attempt": delivery.attempt, "consumer": consumer.token}
        await self.worker.connection.publish(subject, json.dumps(facts).encode())

    # Each step of its handler (`StepListener`)...

    def before_step(self, now: float) -> None:
        """After a pause the handler must not go on believing that the job is still its own."""
        if now >= self.lease.trusted_until:
            self.worker.leases.is_held(self.lease)

    def first_suspended(self) -> None:
        """The handler waits for something: another job may start."""
        self.worker.gave_way()

    def step_too_long(self, seconds: float) -> None:
        logger.warning(
            "%r blocked the event loop for %.1f s; leases last %g s",
            *(self, seconds, self.worker.consumer.ack_wait),
        )
        self._attempts.report.job(LoopBlocked, self.delivery, seconds=seconds)

    def __repr__(self) -> str:
        return repr(self.job)
