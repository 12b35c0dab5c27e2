"""An ending becomes the answer to the server, an event and a count. One `match`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

import anyio

from ..backoff import delay_of
from ..errors import JobTimeout, NatsJobsError, Retry, UsageError
from ..events import Complete, DeadLettered, Error, Interrupted as InterruptedEvent, Timeout
from ..jetstream import ACK, nak_answer, term_answer
from . import _dead_letters
from ._emitter import logger
from ._endings import Cancelled, Done, Ending, Failed, Interrupted, Lost, Rejected, Snoozed
from ._lease import Lease
from ._reasons import CancelReason

if TYPE_CHECKING:
    from ._worker import Worker

__all__ = ("Counts", "Settler")

# Seconds. Parking a job must not hold up a stop for longer.
_PARK_LIMIT = 20.0
# Seconds until a job that could not be parked is delivered again.
_PARK_AGAIN = 5.0


@dataclass
class Counts:
    """How many attempts of a worker ended in which way."""

    completed: int = 0
    failed: int = 0
    interrupted: int = 0
    dead_lettered: int = 0
    lost: int = 0


class Settler:
    """Settles the attempts of one worker."""

    def __init__(self, worker: Worker[Any]) -> None:
        self.counts = Counts()
        self._worker = worker
        self._expected = worker.defn.expected

    async def settle(self, lease: Lease, ending: Ending, started: float) -> None:
        """Answer for an attempt that began at `started`. The lease sees to it that the answer is confirmed."""
        match ending:
            case Done():
                self._done(lease, started)
            case Failed():
                await self._failed(lease, ending, started)
            case Snoozed(delay):
                await self._back(lease, "snoozed", delay, started)
            case Rejected(why, error):
                await self._park(lease, why, error)
            case Interrupted(why):
                await self._back(lease, why, 0.0, started)
            case Cancelled():
                self._worker.leases.settle(lease, term_answer(CancelReason.CANCELLED.value))
                self._interrupted(lease, CancelReason.CANCELLED.value, 0.0, started)
            case Lost():
                # Counted and told when it was noticed.
                pass
            case _:
                assert_never(ending)

    def hand_back(self, lease: Lease, why: str, started: float) -> None:
        """Give the job back at once, without waiting for anything: the worker is being cancelled."""
        self._worker.leases.settle(lease, nak_answer())
        self._interrupted(lease, why, 0.0, started)

    def _done(self, lease: Lease, started: float) -> None:
        worker = self._worker
        if not worker.leases.settle(lease, ACK):
            return

        self.counts.completed += 1
        if worker.emitter.wanted:
            duration, exceeded = self._took(started)
            worker.emitter.emit(
                Complete(**worker.describe(lease.delivery), duration=duration, exceeded=exceeded)
            )

    async def _failed(self, lease: Lease, ending: Failed, started: float) -> None:
        worker = self._worker
        if not worker.leases.is_held(lease):
            return

        self.counts.failed += 1
        attempt = lease.delivery.attempt
        exhausted = attempt >= worker.last_attempt_of(lease.delivery)
        delay = None if exhausted else self._delay(ending, attempt)
        self._tell_failure(lease, ending.error, delay, started)
        if delay is None:
            await self._park(lease, "exhausted", ending.error)
        else:
            worker.leases.settle(lease, nak_answer(delay))

    def _delay(self, ending: Failed, attempt: int) -> float:
        if ending.delay is not None:
            return ending.delay

        try:
            return delay_of(self._worker.defn.backoff, attempt)
        except Exception as error:
            # The user's function. The job must not be lost for it.
            logger.error("%r: %s; waiting 1 s", self._worker.defn, error)
            return 1.0

    def _tell_failure(self, lease: Lease, error: Exception, delay: float | None, started: float) -> None:
        worker = self._worker
        if isinstance(error, Retry) and delay is not None:
            return

        if worker.emitter.wanted:
            about = worker.describe(lease.delivery)
            duration, exceeded = self._took(started)
            if isinstance(error, JobTimeout):
                worker.emitter.emit(Timeout(**about, timeout=error.seconds))

            worker.emitter.emit(
                Error(
                    **about,
                    error=error,
                    attempts_exhausted=delay is None,
                    backoff=delay,
                    duration=duration,
                    exceeded=exceeded,
                )
            )

    async def _back(self, lease: Lease, why: str, delay: float, started: float) -> None:
        """Let the server deliver it again; or park it when the server never would."""
        if self._worker.is_last_delivery(lease.delivery.attempt):
            await self._park(
                lease, "interrupted", UsageError(f"{why} on the last delivery that max_deliver allows")
            )
            return

        if self._worker.leases.settle(lease, nak_answer(delay)):
            self._interrupted(lease, why, delay, started)

    def _interrupted(self, lease: Lease, why: str, delay: float, started: float) -> None:
        self.counts.interrupted += 1
        worker = self._worker
        if worker.emitter.wanted:
            duration, _ = self._took(started)
            worker.emitter.emit(
                InterruptedEvent(
                    **worker.describe(lease.delivery), reason=why, delay=delay, duration=duration
                )
            )

    async def _park(self, lease: Lease, reason: str, error: Exception) -> None:
        """Publish the dead letter, then end the original: a crash in between leaves a duplicate, never a loss."""
        worker = self._worker
        if not worker.leases.is_held(lease):
            return

        if worker.defn.dead_letter and not await self._parked(lease, reason, error):
            worker.leases.settle(lease, nak_answer(_PARK_AGAIN))
            return

        if worker.leases.settle(lease, term_answer(f"{reason}: {error}"[:200])):
            self.counts.dead_lettered += 1
            if worker.emitter.wanted:
                worker.emitter.emit(
                    DeadLettered(**worker.describe(lease.delivery), reason=reason, error=str(error))
                )

    async def _parked(self, lease: Lease, reason: str, error: Exception) -> bool:
        try:
            # Shielded, and bounded: a stop in this moment would make the job fail once more.
            with anyio.move_on_after(_PARK_LIMIT, shield=True):
                await _dead_letters.park(self._worker.connection, lease.delivery, reason, error)
                return True
        except NatsJobsError as trouble:
            logger.error(
                "%s/%s could not be parked in %s, it will be delivered again: %s",
                lease.delivery.stream,
                lease.delivery.sequence,
                _dead_letters.STREAM,
                trouble,
            )

        return False

    def _took(self, started: float) -> tuple[float, float]:
        duration = self._worker.clock() - started
        return duration, max(0.0, duration - self._expected) if self._expected is not None else 0.0
