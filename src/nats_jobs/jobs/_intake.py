"""What comes in: how many messages to ask for, and the deliveries that wait for a slot.

A delivery that waits here uses up its lease, so only what can start at once is asked for. "At once"
includes the slots that will have become free by the time a message has travelled here: when jobs take
a millisecond, asking only for what is free now would leave the slots idle half of the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .._clock import Clock
from ..errors import NatsJobsError
from ..jetstream import Delivery, Puller, Settlement
from ._lease import Lease, LeaseKeeper

__all__ = ("Demand", "Intake")

# Seconds: a message that was asked for is here by then, on a link that is worth the name.
_TRAVEL = 0.01


class Demand:
    """Says how many messages to ask for. Pure arithmetic on counts and times.

    Args:
        concurrency: how many jobs can run at once.
        batch: the most for one request, when the user gave it; above `concurrency` it is also how many
            may be in hand.
    """

    def __init__(self, concurrency: int, batch: int | None) -> None:
        self.concurrency = concurrency
        self._batch = batch
        self._hoard = max(0, (batch or 0) - concurrency)
        self._ahead = 0
        self._completed = 0
        self._since: float | None = None

    @property
    def hoards(self) -> bool:
        """Whether the user asked for more than can start at once."""
        return self._hoard > 0

    def completed(self) -> None:
        """Count a job that has ended."""
        self._completed += 1

    def slowed_down(self) -> None:
        """What was asked for in advance could not start: ask for less."""
        self._ahead = 0

    def missing(self, in_hand: int, outstanding: int) -> int:
        """Return how many could be asked for. Cheap, for each job."""
        return self.concurrency + max(self._ahead, self._hoard) - in_hand - outstanding

    def batch(self, now: float, missing: int, waiting: int, outstanding: int) -> int:
        """Return how many to ask for now; 0 while what is under way or waiting suffices."""
        if missing < 1 or (4 * missing < self.concurrency + self._ahead and (waiting or outstanding)):
            return 0

        self._look_ahead(now)
        return min(missing, self._batch or missing)

    def _look_ahead(self, now: float) -> None:
        if self._since is not None and now > self._since:
            expected = int(self._completed / (now - self._since) * _TRAVEL)
            self._ahead = min(self.concurrency, (self._ahead + expected + 1) // 2 if expected else 0)

        self._since = now
        self._completed = 0


class Intake:
    """The deliveries in hand that no slot has taken yet. Gives back what it cannot use."""

    def __init__(
        self,
        demand: Demand,
        leases: LeaseKeeper,
        clock: Clock,
        *,
        busy: Callable[[], int],
        wake: Callable[[], None],
        redelivered: Callable[[Delivery], None],
        pulled: Callable[[int], None],
    ) -> None:
        self.puller: Puller | None = None
        self._demand = demand
        self._leases = leases
        self._clock = clock
        self._busy = busy
        self._wake = wake
        self._redelivered = redelivered
        self._pulled = pulled
        self._waiting: deque[Lease] = deque()
        self._open = True

    def __len__(self) -> int:
        return len(self._waiting)

    def receive(self, delivery: Delivery) -> None:
        """Take in a delivery, or hand it back when the worker is stopping. Called in the reader."""
        lease = self._leases.add(delivery)
        if lease is None:
            # Used up on the way: the server will deliver it again, to whoever asks.
            self.refill()
            return

        if not self._open:
            self._leases.settle(lease, Settlement.nak())
            return

        if delivery.attempt > 1:
            self._redelivered(delivery)

        self._waiting.append(lease)
        self._wake()

    def take(self) -> Lease | None:
        """Return the next delivery to perform. One whose lease was lost while it waited is dropped here."""
        dropped = 0
        taken: Lease | None = None
        while self._waiting and taken is None:
            lease = self._waiting.popleft()
            if self._leases.is_held(lease):
                lease.started = True
                taken = lease
            else:
                dropped += 1

        if dropped:
            # They counted as work in hand: perhaps nothing was asked for because of them.
            self._request(starting=taken is not None)

        return taken

    def completed(self) -> None:
        """A job has ended: perhaps it is time to ask for more."""
        self._demand.completed()
        self.refill()

    def refill(self) -> None:
        """Ask for what is missing."""
        self._request(starting=False)

    def _request(self, starting: bool) -> None:
        """Ask for what is missing; `starting` says that one job more is about to run than `busy` knows of."""
        puller = self.puller
        if puller is None or not self._open:
            return

        waiting = len(self._waiting)
        outstanding = puller.outstanding
        missing = self._demand.missing(self._busy() + starting + waiting, outstanding)
        if missing < 1:
            return

        batch = self._demand.batch(self._clock(), missing, waiting, outstanding)
        if batch and puller.pull(batch):
            self._pulled(batch)

    def recheck_consumer(self, error: NatsJobsError) -> None:
        """Something speaks against the consumer being there, or being ours to use: have it looked at."""
        if self.puller is not None and self._open:
            self.puller.recheck_consumer(error)

    def idle(self, lease: Lease) -> bool:
        """A delivery has waited long: keep it only if the user asked for such a store."""
        if self._demand.hoards:
            return True

        self._demand.slowed_down()
        self._leases.settle(lease, Settlement.nak())
        return False

    def standing(self) -> str | None:
        """Say how it is when slots are free, and neither work starts nor a request is at the server; None when all is well."""
        puller = self.puller
        free = self._demand.concurrency - self._busy()
        if puller is None or not self._open or free < 1 or not puller.can_request:
            return None

        waiting = len(self._waiting)
        if not waiting and puller.outstanding:
            return None

        return f"{free} slots are free, {waiting} jobs wait for one, {puller.outstanding} are asked for"

    def nudge(self) -> None:
        """Have a slot look for work, and ask for what is missing."""
        self._wake()
        self.refill()

    def close(self) -> None:
        """Take nothing more, and hand back at once what has not started."""
        self._open = False
        if self.puller is not None:
            # First: or the server would deliver what is handed back to a request of ours that still stands.
            self.puller.cancel_requests()

        while (lease := self.take()) is not None:
            self._leases.settle(lease, Settlement.nak())
