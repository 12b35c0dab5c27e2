"""What performs the jobs of one consumer: its parts, and the order in which they begin and end.

    leases kept             outlives the attempts: what they settle must be confirmed
      attempts              the slots, each performing one job after the other
        claims heard        for as long as anything is in hand
          lost deliveries   parked, and the watch that nothing stands still
            pull requests   innermost: they end first

A stop ends them from the inside out: the requests are taken back, what has not started is handed back, the
running jobs get their grace and are then cancelled with STOP, the settlements are confirmed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import get_ident
from typing import Any

import anyio
from anyio.abc import TaskStatus

from .._clock import running_clock
from .._groups import outliving_group
from ..errors import ConsumerGone, NatsJobsError
from ..events import LeaseLost, NoAck, Pull, Start, Working
from ..jetstream import Delivery, Puller
from ._attempt import Attempts
from ._bound_consumer import BoundConsumer
from ._claims import Claims
from ._consumer_watch import ConsumerWatch
from ._context import WorkerContext
from ._definition import JobDef
from ._demand import Demand
from ._dispatcher import Dispatcher
from ._emitter import logger
from ._handlers import AsyncHandler
from ._lease import Lease
from ._lease_keeper import LeaseKeeper
from ._max_deliveries import MaxDeliveriesMonitor
from ._reasons import CancelReason
from ._reporter import Reporter
from ._settle import Counts, Settler
from ._shutdown import Shutdown
from ._stall_watch import StallWatch
from ._unresponsive import UnresponsiveMonitor

__all__ = ("Engine",)

# The pulse must be sharper than the lease is long.
_PULSES_PER_ACK_WAIT = 20


class Engine:
    """Pulls and performs jobs of one consumer until it is told to stop. Made once that consumer is known."""

    def __init__(
        self,
        defn: JobDef[Any],
        context: WorkerContext,
        handler: AsyncHandler,
        consumer: BoundConsumer,
        shutdown: Shutdown,
        counts: Counts,
    ) -> None:
        self.defn = defn
        self.processor = context.processor
        self.connection = context.api.connection
        self.consumer = consumer
        self.clock = running_clock()
        self.thread = get_ident()
        self._context = context
        self._shutdown = shutdown
        self._counts = counts
        self.report = Reporter(context.emitter, consumer)
        self.leases = LeaseKeeper(
            self.connection,
            self.clock,
            ack_wait=consumer.ack_wait,
            auto_extend=defn.auto_extend_ack_timeout,
            listener=self,
        )
        self._settler = Settler(
            defn,
            context.api,
            self.leases,
            consumer.limits,
            self.report,
            self.clock,
            counts,
            shutdown.requested,
        )
        self.attempts = Attempts(self, self._settler, self.report, handler)
        self._unresponsive = UnresponsiveMonitor(
            self.report, context.patience, self.clock, self.attempts.under_way
        )
        self._puller = Puller(
            context.api,
            consumer.stream,
            consumer.name,
            expires=defn.pull_interval,
            clock=self.clock,
            on_delivery=self._on_delivery,
            on_ready=self._on_ready,
            on_trouble=self._on_trouble,
        )
        self._claims = Claims(
            self.connection,
            consumer.stream,
            consumer.name,
            on_claim=self.leases.on_claim,
            mark_doubtful=self.leases.mark_doubtful,
        )
        self.dispatcher = Dispatcher(
            Demand(defn.concurrency, defn.batch),
            self.leases,
            self._puller,
            self.clock,
            self.attempts.perform,
            on_redelivered=self._claims.announce,
            on_pulled=self._on_pulled,
        )
        self._max_deliveries = MaxDeliveriesMonitor(
            defn, context.api, consumer, self.leases, self._claims, self.report, counts
        )
        self._watch = ConsumerWatch(
            context.api,
            defn,
            consumer,
            self.clock,
            busy=self._is_busy,
            on_unverified=self.leases.hold,
            on_verified=self._adopt,
            on_gone=self._on_gone,
        )
        self._stalls = StallWatch(
            consumer.stream, consumer.name, self.dispatcher.standing, self.dispatcher.nudge
        )

    async def run(self, task_status: TaskStatus[None]) -> None:
        """Work until told to stop, wind down; started when the first requests can be sent.

        Raises:
            ConfigMismatch, SetupFailed: the consumer is gone, and cannot be set up again.
            StreamDeleted, PullRefused, PermissionDenied: there is nothing to work on any more.
        """
        self.report.worker(Start, concurrency=self.defn.concurrency)
        self.connection.lowlevel.set_receive_precision(self.consumer.ack_wait / _PULSES_PER_ACK_WAIT)
        async with outliving_group("every delivery is settled") as keeping:
            keeping.start_soon(self.leases.keep)
            keeping.start_soon(self._unresponsive.run)
            keeping.start_soon(self._watch_consumer)
            with self._watch.listening():
                try:
                    # The attempts learn of a cancellation from around by their own scopes, which say why.
                    async with outliving_group(CancelReason.STOP.text) as attempts:
                        self.dispatcher.slots.open(attempts)
                        with self._claims.listening(self.consumer.token):
                            await self._pull_until_stopped(task_status)
                            await self._wind_down()
                finally:
                    # A lease without extensions ends by itself, so this does too.
                    with anyio.move_on_after(self.consumer.ack_wait, shield=True):
                        await self.leases.wait_empty()

    async def _pull_until_stopped(self, task_status: TaskStatus[None]) -> None:
        with self._max_deliveries.listening():
            async with anyio.create_task_group() as beside:
                beside.start_soon(self._max_deliveries.run)
                beside.start_soon(self._stalls.run)
                async with self._pulling():
                    task_status.started()
                    await self._shutdown.requested.wait()

                beside.cancel_scope.cancel(CancelReason.STOP.text)

    @asynccontextmanager
    async def _pulling(self) -> AsyncIterator[None]:
        """Pull. At the end take the requests back, and hand back what has not started."""
        try:
            with self._or_cut_short():
                async with anyio.create_task_group() as pulling:
                    await pulling.start(self._pull)
                    yield
                    pulling.cancel_scope.cancel(CancelReason.STOP.text)
        finally:
            self.dispatcher.close()
            with anyio.move_on_after(self.consumer.ack_wait, shield=True):
                await self._puller.close()

    async def _wind_down(self) -> None:
        """Give the running jobs their grace, then cancel them; wait until they have ended, up to a last deadline."""
        idle = self.dispatcher.slots.wait_idle
        with self._or_cut_short(), self._shutdown.grace():
            await idle()

        self._cut_short()
        patience = self._context.patience.give_up_after
        with anyio.move_on_after(patience):
            await idle()
            return

        for attempt in self.attempts.under_way():
            self._unresponsive.give_up(attempt, patience)

        await idle()

    @contextmanager
    def _or_cut_short(self) -> Iterator[None]:
        """When the block does not come to its end, since it is cancelled or has failed, the jobs in hand end at once."""
        try:
            yield
        except BaseException:
            self._shutdown.request(0)
            self._cut_short()
            raise

    def _cut_short(self) -> None:
        for attempt in self.attempts.under_way():
            attempt.cut_short(CancelReason.STOP)

    # The consumer, which may be edited, or be deleted and created again...

    async def _pull(self, *, task_status: TaskStatus[None]) -> None:
        """Pull; when the consumer is gone, set it up again, or bind to the one that others have created, and go on.

        Raises:
            StreamDeleted: the whole stream is gone.
            ConfigMismatch, SetupFailed: that cannot be.
        """
        while True:
            try:
                await self._puller.run(task_status=task_status)
            except ConsumerGone as gone:
                self._on_gone(gone)
                await self._bind_again(gone)

            task_status = anyio.TASK_STATUS_IGNORED

    async def _bind_again(self, gone: ConsumerGone) -> None:
        logger.warning("%s: its jobs in hand are lost", gone)
        consumer = await self._watch.set_up_again(patience=self._context.enqueue_timeout)
        self._max_deliveries.forget()
        self._claims.bind(consumer.token)
        self._adopt(consumer)

    def _on_gone(self, gone: ConsumerGone) -> None:
        """Every lease is lost, and nothing is sent for any of them."""
        self.leases.lose_all(str(gone))
        self._puller.end(gone)

    async def _watch_consumer(self) -> None:
        with self._or_cut_short():
            await self._watch.run()

    def _adopt(self, consumer: BoundConsumer) -> None:
        """The settings of the consumer are these now."""
        if consumer != self.consumer:
            if consumer.ack_wait != self.consumer.ack_wait:
                logger.warning(
                    "ack_wait of %s/%s is %g s now, and was %g s",
                    *(consumer.stream, consumer.name, consumer.ack_wait, self.consumer.ack_wait),
                )
                self.connection.lowlevel.set_receive_precision(consumer.ack_wait / _PULSES_PER_ACK_WAIT)

            self.consumer = self._watch.consumer = consumer
            self.report.bind(consumer)
            self._settler.limits = consumer.limits

        self.leases.adopt(consumer.ack_wait)

    # What the parts tell...

    def _is_busy(self) -> bool:
        return len(self.leases) > 0

    def _on_delivery(self, delivery: Delivery) -> None:
        self._watch.on_delivery()
        self.dispatcher.receive(delivery)

    def _on_ready(self) -> None:
        self.dispatcher.refill()

    def _on_trouble(self) -> None:
        self._watch.check_soon()

    def _on_pulled(self, batch: int) -> None:
        self.report.worker(Pull, batch=batch, expires=self.defn.pull_interval)

    def lease_lost(self, lease: Lease, reason: str) -> None:
        self._counts.lost += 1
        self.report.job(LeaseLost, lease.delivery, reason=reason)
        attempt = self.attempts.running.get(lease)
        if attempt is not None:
            attempt.cut_short(CancelReason.LEASE_LOST)

    def lease_idle(self, lease: Lease) -> bool:
        return self.dispatcher.on_idle(lease)

    def lease_extended(self, lease: Lease) -> None:
        self.report.job(Working, lease.delivery, interval=self.leases.extension_interval)

    def refused(self, error: NatsJobsError) -> None:
        self.dispatcher.recheck_consumer(error)

    def on_rival_claim(self, lease: Lease) -> None:
        self._claims.announce(lease.delivery)

    def not_confirmed(self, lease: Lease, reason: str) -> None:
        assert lease.settlement is not None
        self.report.job(NoAck, lease.delivery, settlement=lease.settlement.name, reason=reason)

    # What an attempt asks and tells...

    @property
    def stopping(self) -> bool:
        return self._shutdown.requested.is_set()

    async def wait_stopping(self) -> None:
        await self._shutdown.requested.wait()

    def gave_way(self) -> None:
        self.dispatcher.slots.wake()
