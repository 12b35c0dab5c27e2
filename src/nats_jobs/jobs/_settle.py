"""An ending becomes the answer to the server, an event and a count. One `match`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_never

import anyio

from .._clock import Clock
from .._groups import text_of
from ..backoff import delay_of
from ..errors import JobTimeout, NatsJobsError, Retry
from ..events import Complete, DeadLettered, Error, Interrupted as InterruptedEvent, Timeout
from ..jetstream import ACK, Delivery, JetStreamApi, Settlement
from ._definition import JobDef
from ._emitter import logger
from ._endings import Cancelled, Done, Ending, Failed, Interrupted, Lost, Rejected, Snoozed
from ._lease import Lease
from ._lease_keeper import LeaseKeeper
from ._limits import Limits
from ._not_before import was_delayed
from ._parking import Parking
from ._reasons import CancelReason
from ._reporter import Reporter

__all__ = ("Counts", "Settler")

# Seconds.
_LOOK_TIMEOUT = 2.0
# Characters.
_MAX_REASON = 200


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

    def __init__(
        self,
        defn: JobDef[Any],
        api: JetStreamApi,
        leases: LeaseKeeper,
        limits: Limits,
        reporter: Reporter,
        clock: Clock,
        counts: Counts,
        stopping: anyio.Event,
    ) -> None:
        self._defn = defn
        self._api = api
        self._leases = leases
        self.limits = limits
        self._report = reporter
        self._clock = clock
        self._counts = counts
        self._parking = Parking(api, leases, stopping)

    async def settle(self, lease: Lease, ending: Ending, started: float) -> None:
        """Answer for an attempt that began at `started`. The lease sees to it that the answer is confirmed."""
        match ending:
            case Done():
                self.done(lease, started)
            case Failed():
                await self._failed(lease, ending, started)
            case Snoozed(delay):
                await self._back(lease, "snoozed", delay, started)
            case Rejected(reason, error):
                await self._park(lease, reason, error)
            case Interrupted(reason):
                await self._back(lease, reason, 0.0, started)
            case Cancelled():
                self._drop(lease, started)
            case Lost():
                # Counted and told when it was noticed.
                pass
            case _:
                assert_never(ending)

    def hand_back(self, lease: Lease, reason: str, started: float) -> None:
        """Give the job back at once, without waiting for anything: the worker is being cancelled."""
        if self._leases.settle(lease, Settlement.nak()):
            self._interrupted(lease, reason, 0.0, started)

    def done(self, lease: Lease, started: float) -> None:
        """Answer for an attempt that has ended well, which is nearly always."""
        if not self._leases.settle(lease, ACK):
            return

        self._counts.completed += 1
        if self._report.wanted:
            duration, exceeded = self._took(started)
            self._report.job(Complete, lease.delivery, duration=duration, exceeded=exceeded)

    async def _failed(self, lease: Lease, ending: Failed, started: float) -> None:
        if not self._leases.is_held(lease):
            return

        self._counts.failed += 1
        delivery = lease.delivery
        exhausted = delivery.attempt >= self.limits.last_attempt(delayed=was_delayed(delivery))
        expired = not exhausted and await self._has_expired(delivery)
        delay = None if exhausted or expired else self._delay(ending, delivery.attempt)
        self._tell_failure(delivery, ending.error, delay, started)
        if delay is None:
            await self._park(lease, "expired" if expired else "exhausted", ending.error)
        else:
            self._leases.settle(lease, Settlement.nak(delay))

    async def _has_expired(self, delivery: Delivery) -> bool:
        """Whether the stream has removed it for its `max_age`, so that no other attempt can come.

        The clocks here and there may differ, so the server has the last word.
        """
        age = (datetime.now(UTC) - delivery.stored_at).total_seconds()
        if not self.limits.may_have_expired(age):
            return False

        try:
            # As for parking: a stop in this moment would make the job fail once more.
            with anyio.move_on_after(_LOOK_TIMEOUT, shield=True):
                return await self._api.get_message(delivery.stream, {"seq": delivery.sequence}) is None
        except NatsJobsError as error:
            logger.warning(
                "could not check whether %s/%s is past its max_age: %s",
                *(delivery.stream, delivery.sequence, text_of(error)),
            )

        return False

    def _delay(self, ending: Failed, attempt: int) -> float:
        if ending.delay is not None:
            return ending.delay

        try:
            return delay_of(self._defn.backoff, attempt)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # The user's function. The job must not be lost for it.
            logger.error("%r: backoff failed (%s); waiting 1 s", self._defn, text_of(error))
            return 1.0

    def _tell_failure(
        self, delivery: Delivery, error: Exception, delay: float | None, started: float
    ) -> None:
        if isinstance(error, JobTimeout):
            self._report.job(Timeout, delivery, timeout=error.seconds)

        if isinstance(error, Retry) and delay is not None:
            # The handler asked for it: nothing went wrong.
            duration, _ = self._took(started)
            self._report.job(InterruptedEvent, delivery, reason="retry", delay=delay, duration=duration)
            return

        duration, exceeded = self._took(started)
        self._report.job(
            Error,
            delivery,
            error=error,
            attempts_exhausted=delay is None,
            backoff=delay,
            duration=duration,
            exceeded=exceeded,
        )

    async def _back(self, lease: Lease, reason: str, delay: float, started: float) -> None:
        """Let the server deliver it again; or park it when the server never would."""
        if self.limits.is_last_delivery(lease.delivery.attempt):
            await self._park(
                lease, "interrupted", NatsJobsError(f"{reason} on the last delivery that max_deliver allows")
            )
        elif self._leases.settle(lease, Settlement.nak(delay)):
            self._interrupted(lease, reason, delay, started)

    def _drop(self, lease: Lease, started: float) -> None:
        reason = CancelReason.CANCELLED
        if self._leases.settle(lease, Settlement.term(reason.text)):
            self._interrupted(lease, reason.value, 0.0, started)

    def _interrupted(self, lease: Lease, reason: str, delay: float, started: float) -> None:
        self._counts.interrupted += 1
        duration, _ = self._took(started)
        self._report.job(InterruptedEvent, lease.delivery, reason=reason, delay=delay, duration=duration)

    async def _park(self, lease: Lease, reason: str, error: Exception) -> None:
        """Publish the dead letter, then end the original: a crash in between leaves a duplicate, never a loss.

        While the letter cannot be stored, that alone is repeated for as long as the lease is held: the handler
        has done its part. A stop ends the repeating, and then the job comes again.
        """
        if self._defn.dead_letter and not await self._parking.park(lease, reason, error):
            return

        if self._leases.settle(lease, Settlement.term(f"{reason}: {text_of(error)}"[:_MAX_REASON])):
            self._counts.dead_lettered += 1
            self._report.job(DeadLettered, lease.delivery, reason=reason, error=text_of(error))

    def _took(self, started: float) -> tuple[float, float]:
        duration = self._clock() - started
        expected = self._defn.expected
        return duration, max(0.0, duration - expected) if expected is not None else 0.0
