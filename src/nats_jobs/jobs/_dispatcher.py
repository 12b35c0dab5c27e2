"""What is between the pull requests and the slots: the deliveries in hand that no slot has taken yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from .._clock import Clock
from ..errors import NatsJobsError
from ..jetstream import Delivery, Puller, Settlement
from ._demand import Demand
from ._lease import Lease
from ._lease_keeper import LeaseKeeper
from ._slots import Rest, Slots
from ._task_watch import TaskWatch

__all__ = ("Dispatcher",)


class Dispatcher:
    """Takes deliveries in, hands them to free slots, and asks for more. Gives back what it cannot use.

    Args:
        perform: see `Slots`.
        on_redelivered: called with a delivery that is not the first of its message.
        on_pulled: called with how many were asked for.
    """

    def __init__(
        self,
        demand: Demand,
        leases: LeaseKeeper,
        puller: Puller,
        clock: Clock,
        perform: Callable[[Lease, TaskWatch], Awaitable[Rest | None]],
        *,
        on_redelivered: Callable[[Delivery], None],
        on_pulled: Callable[[int], None],
    ) -> None:
        self.slots = Slots(demand.concurrency, self.take, perform, self.completed)
        self._demand = demand
        self._leases = leases
        self._puller = puller
        self._clock = clock
        self._on_redelivered = on_redelivered
        self._on_pulled = on_pulled
        self._waiting: deque[Lease] = deque()
        self._open = True

    def __len__(self) -> int:
        return len(self._waiting)

    def receive(self, delivery: Delivery) -> None:
        """Take in a delivery, or hand it back when the worker is stopping. Called in the reader."""
        lease = self._leases.add(delivery)
        if lease is None:
            # Used up on the way: the server will deliver it again.
            self.refill()
            return

        if not self._open:
            self._leases.settle(lease, Settlement.nak())
            return

        if delivery.attempt > 1:
            self._on_redelivered(delivery)

        self._waiting.append(lease)
        self.slots.wake()

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
        if not self._open:
            return

        waiting = len(self._waiting)
        outstanding = self._puller.outstanding
        missing = self._demand.missing(self.slots.busy + starting + waiting, outstanding)
        if missing < 1:
            return

        batch = self._demand.batch(self._clock(), missing, waiting, outstanding)
        if batch and self._puller.pull(batch):
            self._on_pulled(batch)

    def recheck_consumer(self, error: NatsJobsError) -> None:
        """Something speaks against the consumer being there, or being ours to use: have it looked at."""
        if self._open:
            self._puller.recheck_consumer(error)

    def on_idle(self, lease: Lease) -> bool:
        """A delivery has waited long: keep it only if the user asked for a prefetch."""
        if self._demand.prefetches:
            return True

        self._demand.slowed_down()
        self._leases.settle(lease, Settlement.nak())
        return False

    def standing(self) -> str | None:
        """Say how it is when slots are free, and neither work starts nor a request is at the server; None when all is well."""
        free = self._demand.concurrency - self.slots.busy
        if not self._open or free < 1 or not self._puller.can_request:
            return None

        waiting, outstanding = len(self._waiting), self._puller.outstanding
        if not waiting and outstanding:
            return None

        return f"{free} slots are free, {waiting} jobs wait for one, {outstanding} are asked for"

    def nudge(self) -> None:
        """Have a slot look for work, and ask for what is missing."""
        self.slots.wake()
        self.refill()

    def close(self) -> None:
        """Take nothing more, and hand back at once what has not started."""
        self._open = False
        # First: or the server would deliver what is handed back to a request of ours that still stands.
        self._puller.cancel_requests()
        while (lease := self.take()) is not None:
            self._leases.settle(lease, Settlement.nak())
