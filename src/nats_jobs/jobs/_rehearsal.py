"""One delivery, performed and settled as an engine does it, without pulling: for tests of handlers.

The attempt, its slot, its lease and what settles it are the real ones. What they send goes to the connection
that they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import Any

import anyio

from .._clock import running_clock
from .._groups import unwrapped
from ..events import Event, LeaseLost
from ..jetstream import Delivery, Info, JetStreamApi
from ..units import from_ns
from ._attempt import Attempts
from ._bound_consumer import BoundConsumer
from ._default_config import default_consumer, default_stream
from ._definition import JobDef
from ._emitter import Emitter
from ._endings import Done, Ending, Lost
from ._handlers import async_handler
from ._lease import Lease
from ._lease_keeper import LeaseKeeper
from ._middleware import MiddlewareStack
from ._reasons import CancelReason
from ._reporter import Reporter
from ._settle import Counts, Settler
from ._slots import Slots

__all__ = ("Rehearsal",)


class Rehearsal:
    """An engine for one delivery."""

    def __init__(
        self,
        defn: JobDef[Any],
        api: JetStreamApi,
        processor: object,
        on_event: Callable[[Event], object],
    ) -> None:
        self.defn = defn
        self.processor = processor
        self.consumer = _as_if_set_up(defn)
        self.clock = running_clock()
        self.connection = api.connection
        self.thread = get_ident()
        self.ending: Ending = Done()
        self._stop_requested = anyio.Event()
        self._ended = anyio.Event()
        self._report = Reporter(Emitter(on_event), self.consumer)
        self.leases = LeaseKeeper(
            self.connection,
            self.clock,
            ack_wait=self.consumer.ack_wait,
            auto_extend=defn.auto_extend_ack_timeout,
            listener=self,
        )
        self._settler = _NotingSettler(
            defn,
            api,
            self.leases,
            self.consumer.limits,
            self._report,
            self.clock,
            Counts(),
            self._stop_requested,
        )
        self._settler.on_ending = self._note
        self._attempts: Attempts | None = None

    async def run(
        self,
        delivery: Delivery,
        middleware: MiddlewareStack,
        *beside: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Perform the delivery and settle it. What is in `beside` runs meanwhile, and is cancelled at the end."""
        lease = self.leases.add(delivery)
        assert lease is not None
        lease.started = True
        ready = [lease]
        with unwrapped():
            async with async_handler(self.defn) as handler, anyio.create_task_group() as group:
                group.start_soon(self.leases.keep)
                self._attempts = Attempts(self, self._settler, self._report, middleware.wrap(handler))
                slots = Slots(
                    1, lambda: ready.pop() if ready else None, self._attempts.perform, self._ended.set
                )
                slots.open(group)
                slots.wake()
                for function in beside:
                    group.start_soon(function)

                await self._ended.wait()
                group.cancel_scope.cancel("the rehearsal is over")

    # What can happen meanwhile...

    async def stop(self, grace: float) -> None:
        """Tell the job that its worker stops, and cut it short when the grace is over."""
        self._stop_requested.set()
        await anyio.sleep(grace)
        await self.cut_short(CancelReason.STOP)

    async def lose_lease(self) -> None:
        """Another worker has the job now."""
        self.leases.lose_all("the test took it away")

    async def cut_short(self, reason: CancelReason) -> None:
        """Cancel the handler, for this reason."""
        self._cut_short(reason)

    def _cut_short(self, reason: CancelReason) -> None:
        for attempt in () if self._attempts is None else self._attempts.under_way():
            attempt.cut_short(reason)

    # What an attempt asks and tells (`AttemptWorker`)...

    @property
    def stopping(self) -> bool:
        return self._stop_requested.is_set()

    async def wait_stopping(self) -> None:
        await self._stop_requested.wait()

    def gave_way(self) -> None:
        pass

    def _note(self, ending: Ending) -> None:
        self.ending = ending

    # What the lease keeper tells (`LeaseListener`)...

    def lease_lost(self, lease: Lease, reason: str) -> None:
        self.ending = Lost()
        self._report.job(LeaseLost, lease.delivery, reason=reason)
        self._cut_short(CancelReason.LEASE_LOST)

    def lease_idle(self, lease: Lease) -> bool:
        return True

    def lease_extended(self, lease: Lease) -> None:
        pass

    def refused(self, error: Exception) -> None:
        pass

    def on_rival_claim(self, lease: Lease) -> None:
        pass

    def not_confirmed(self, lease: Lease, reason: str) -> None:
        pass


class _NotingSettler(Settler):
    """Tells how the attempt ended before it is settled."""

    on_ending: Callable[[Ending], None]

    async def settle(self, lease: Lease, ending: Ending, started: float) -> None:
        self.on_ending(ending)
        await super().settle(lease, ending, started)


def _as_if_set_up(defn: JobDef[Any]) -> BoundConsumer:
    """Return the consumer that a worker would have made. Its stream keeps everything: nothing expires in a test."""
    config = default_consumer(defn, default_stream(defn))
    return BoundConsumer.of(defn, Info(config, "", {}, {}), from_ns(0))
