"""A worker: one definition, started. Its task tree, its books, and its way of stopping.

    leases kept           outlives the attempts: what they settle must be confirmed
      attempts            the slots, each performing one job after the other
        intake            the pull requests and their watch; beside them the watch for lost last deliveries

Stop ends them from the inside out: the requests are taken back, what has not started is handed back,
the running jobs get their grace and are then cancelled with STOP, the settlements are confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
from anyio.abc import TaskStatus

from .. import events
from .._clock import running_clock
from .._groups import outliving_group
from ..errors import ConsumerGone, NatsJobsError, SetupFailed
from ..events import LeaseLost, LoopBlocked, NoAck, Pull, Start, Working
from ..jetstream import Delivery, Puller, is_retryable
from ..wire import Connection
from ._attempt import Attempt, Attempts
from ._claims import Claims
from ._consumer_watch import ConsumerWatch
from ._definition import JobDef
from ._emitter import Emitter, logger
from ._handlers import async_handler
from ._intake import Demand, Intake
from ._job import Job
from ._lease import Lease, LeaseKeeper
from ._max_deliveries import MaxDeliveriesMonitor
from ._reasons import CancelReason
from ._reporter import Reporter
from ._settle import Counts, Settler
from ._setup import Site, set_up, set_up_again
from ._slots import Slots
from ._stall_watch import StallWatch
from ._stop import Stop
from ._unresponsive import UnresponsiveMonitor

if TYPE_CHECKING:
    from ._processor import Processor

__all__ = ("Worker", "WorkerStatistics")

T = TypeVar("T")

# The pulse must be sharper than the lease is long.
_PULSES_PER_ACK_WAIT = 20


@dataclass(frozen=True, kw_only=True)
class WorkerStatistics:
    """What a worker has done so far, by how attempts ended; and what it has in hand now."""

    running: int
    waiting: int
    completed: int
    failed: int
    interrupted: int
    dead_lettered: int
    lost: int


class Worker(Generic[T]):
    """Runs one definition. Everything but `run` is called from inside its task tree, or is plain."""

    leases: LeaseKeeper
    site: Site
    _attempts: Attempts
    _intake: Intake
    _report: Reporter
    _monitor: UnresponsiveMonitor
    _claims: Claims
    _max_deliveries: MaxDeliveriesMonitor
    _puller: Puller
    _settler: Settler
    _watch: ConsumerWatch
    _slots: Slots[Lease]

    def __init__(
        self, defn: JobDef[T], processor: Processor, connection: Connection, emitter: Emitter
    ) -> None:
        self.defn = defn
        self.processor = processor
        self.api = processor.api
        self.connection = connection
        self.emitter = emitter
        self.clock = running_clock()
        self.thread = get_ident()
        self.ended = anyio.Event()
        self._stop = Stop(processor.stop_grace if defn.stop_grace is None else defn.stop_grace)
        self._counts = Counts()
        self._standing = False

    @property
    def consumer(self) -> str:
        return self.defn.consumer

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Set up, work until told to stop, wind down.

        Raises:
            ConfigMismatch, SetupFailed: there is nothing to work on.
            StreamDeleted, PullRefused, PermissionDenied: there is nothing to work on any more. A consumer that is
                deleted is set up again, or bound to when others have created it again; only when that cannot be,
                it ends with ConfigMismatch or SetupFailed.
        """
        try:
            if self.stopping or not await self._set_up():
                task_status.started()
                return

            self._report = Reporter(self.emitter, self.site)
            self._monitor = UnresponsiveMonitor(
                self._report, self.processor.patience, self.clock, self._under_way
            )
            self.connection.lowlevel.set_receive_precision(self.site.ack_wait / _PULSES_PER_ACK_WAIT)
            self.leases = LeaseKeeper(
                self.connection,
                self.clock,
                ack_wait=self.site.ack_wait,
                auto_extend=self.defn.auto_extend_ack_timeout,
                events=self,
            )
            async with outliving_group("every delivery is settled") as keeping:
                keeping.start_soon(self.leases.keep)
                keeping.start_soon(self._monitor.run)
                self._watch = ConsumerWatch(
                    self.api,
                    self.defn,
                    self.site,
                    self.clock,
                    busy=lambda: len(self.leases) > 0,
                    on_unverified=self.leases.hold,
                    on_verified=self._adopt,
                    on_gone=self._on_gone,
                )
                keeping.start_soon(self._watch_consumer)
                try:
                    await self._work(task_status)
                finally:
                    # A lease without extensions ends by itself, so this does too.
                    with anyio.move_on_after(self.site.ack_wait, shield=True):
                        await self.leases.wait_empty()

                    self._watch.close()
        finally:
            self._stop.asked.set()
            self.ended.set()

    async def _set_up(self) -> bool:
        """Return False when told to stop meanwhile: nobody may be there to answer, and a stop does not wait for that."""
        # A server without JetStream says so in its greeting; else no answer is worth waiting for.
        may_answer = self.connection.server_info.get("jetstream") or not self.api.is_local
        patience = self.processor.enqueue_timeout if may_answer else 0.0
        with self._stop.setting_up:
            self.site = await set_up(self.api, self.defn, patience=patience)

        return not self._stop.setting_up.cancelled_caught

    async def _work(self, task_status: TaskStatus[None]) -> None:
        # The attempts learn of a cancellation from around by their own scopes, which say why.
        async with async_handler(self.defn) as handler, outliving_group(CancelReason.STOP.text) as attempts:
            self._claims = Claims(
                self.connection,
                self.site.stream,
                self.consumer,
                self.site.token,
                on_claim=self.leases.on_claim,
                mark_doubtful=self.leases.mark_doubtful,
            )
            self._max_deliveries = MaxDeliveriesMonitor(
                self.defn,
                self.api,
                self.site,
                self.leases,
                self._claims,
                self._report,
                self._counts,
            )
            self._settler = Settler(
                self.defn,
                self.api,
                self.leases,
                self.site.limits,
                self._report,
                self.clock,
                self._counts,
                self._stop.asked,
            )
            self._attempts = Attempts(
                self, self._settler, self._report, self.processor.middleware.wrap(handler)
            )
            slots = self._slots = Slots(
                attempts, self.defn.concurrency, self._take, self._attempts.perform, self._freed
            )
            self._intake = Intake(
                Demand(self.defn.concurrency, self.defn.batch),
                self.leases,
                self.clock,
                busy=lambda: slots.busy,
                wake=slots.wake,
                redelivered=self._claims.announce,
                pulled=lambda batch: self._report.worker(Pull, batch=batch, expires=self.defn.pull_interval),
            )
            try:
                await self._take_in(task_status)
                await self._wind_down(slots)
            finally:
                # What is left in the group waits for work that will not come.
                self._max_deliveries.close()
                self._claims.close()

    @contextmanager
    def _or_cut_short(self) -> Iterator[None]:
        """When the block does not come to its end, since it is cancelled or has failed, the jobs in hand end at once."""
        try:
            yield
        except BaseException:
            self.ask_to_stop(0)
            self._cut_short()
            raise

    def _cut_short(self) -> None:
        for attempt in self._under_way():
            attempt.cut_short(CancelReason.STOP)

    async def _take_in(self, task_status: TaskStatus[None]) -> None:
        """Pull until told to stop; then take the requests back, and hand back what had not started."""
        puller = self._puller = Puller(
            self.api,
            self.site.stream,
            self.consumer,
            expires=self.defn.pull_interval,
            clock=self.clock,
            on_delivery=self._on_delivery,
            on_ready=self._intake.refill,
        )
        self._intake.puller = puller
        try:
            with self._or_cut_short():
                async with anyio.create_task_group() as intake:
                    intake.start_soon(self._max_deliveries.run)
                    stalls = StallWatch(
                        self.site.stream, self.consumer, self._intake.standing, self._intake.nudge
                    )
                    intake.start_soon(stalls.run)
                    self._standing = True
                    self._report.worker(Start, concurrency=self.defn.concurrency)
                    await intake.start(self._pull, puller)
                    task_status.started()
                    await self._stop.asked.wait()
                    # At once: ending the monitor may take a while, and requests that stand until then bring jobs.
                    self._intake.close()
                    self._max_deliveries.close()
                    intake.cancel_scope.cancel(CancelReason.STOP.text)
        finally:
            self._intake.close()
            with anyio.move_on_after(self.site.ack_wait, shield=True):
                await puller.close()

    async def _pull(self, puller: Puller, *, task_status: TaskStatus[None]) -> None:
        """Pull; when the consumer is gone, set it up again, or bind to the one that others have created, and go on.

        Raises:
            StreamDeleted: the whole stream is gone.
            ConfigMismatch, SetupFailed: that cannot be.
        """
        while True:
            try:
                await puller.run(task_status=task_status)
            except ConsumerGone as gone:
                self._on_gone(gone)
                await self._bind_again(gone)

            task_status = anyio.TASK_STATUS_IGNORED

    async def _bind_again(self, gone: ConsumerGone) -> None:
        logger.warning("%s: its jobs in hand are lost", gone)
        while True:
            await self.connection.wait_connected()
            await self._watch.wait_recreated()
            try:
                site = await set_up_again(self.api, self.defn, patience=self.processor.enqueue_timeout)
                break
            except SetupFailed as failed:
                if not isinstance(failed.__cause__, NatsJobsError) or not is_retryable(failed.__cause__):
                    raise

        self._max_deliveries.forget()
        self._claims.bind(site.token)
        self._adopt(site)

    def _on_gone(self, gone: ConsumerGone) -> None:
        """No delivery is anybody's any more, and nothing is sent for it."""
        self.leases.lose_all(str(gone))
        if self._standing:
            self._puller.end(gone)

    async def _watch_consumer(self) -> None:
        with self._or_cut_short():
            await self._watch.run()

    def _adopt(self, site: Site) -> None:
        """The settings of the consumer are those of `site` now."""
        if site != self.site:
            if site.ack_wait != self.site.ack_wait:
                logger.warning(
                    "ack_wait of %s/%s is %g s now, and was %g s",
                    *(site.stream, site.consumer, site.ack_wait, self.site.ack_wait),
                )
                self.connection.lowlevel.set_receive_precision(site.ack_wait / _PULSES_PER_ACK_WAIT)

            self.site = self._watch.site = site
            self._report.bind(site)
            self._settler.limits = site.limits

        self.leases.adopt(site.ack_wait)

    def _on_delivery(self, delivery: Delivery) -> None:
        self._watch.on_delivery()
        self._intake.receive(delivery)

    async def _wind_down(self, slots: Slots[Lease]) -> None:
        """Give the running jobs their grace, then cancel them; wait until they have ended, up to a last deadline."""
        with self._or_cut_short(), self._stop.grace():
            await slots.wait_idle()

        self._cut_short()
        patience = self.processor.patience.give_up_after
        with anyio.move_on_after(patience):
            await slots.wait_idle()
            return

        for attempt in self._under_way():
            self._monitor.give_up(attempt, patience)

        await slots.wait_idle()

    # Stopping...

    def ask_to_stop(self, grace: float | None = None) -> None:
        """Begin to stop, or shorten the grace. Raises as `Stop.ask` does."""
        told_before = self.stopping
        self._stop.ask(grace)
        if self._standing and not told_before:
            left = self._stop.grace_ends - anyio.current_time()
            self._report.worker(events.Stop, grace=left, running=len(self.running))

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop, or has ended."""
        return self._stop.asked.is_set()

    async def wait_stopping(self) -> None:
        await self._stop.asked.wait()

    # What others ask and tell...

    @property
    def running(self) -> tuple[Job[T], ...]:
        """The jobs in hand."""
        return tuple(attempt.job for attempt in self._under_way())

    def _under_way(self) -> tuple[Attempt, ...]:
        return tuple(self._attempts.running.values()) if self._standing else ()

    def statistics(self) -> WorkerStatistics:
        waiting = len(self._intake) if self._standing else 0
        return WorkerStatistics(running=len(self.running), waiting=waiting, **asdict(self._counts))

    def _take(self) -> Lease | None:
        return self._intake.take()

    def _freed(self) -> None:
        self._intake.completed()

    def lease_lost(self, lease: Lease, reason: str) -> None:
        self._counts.lost += 1
        self._report.job(LeaseLost, lease.delivery, reason=reason)
        attempt = self._attempts.running.get(lease)
        if attempt is not None:
            attempt.cut_short(CancelReason.LEASE_LOST)

    def lease_idle(self, lease: Lease) -> bool:
        return self._intake.idle(lease)

    def lease_extended(self, lease: Lease) -> None:
        self._report.job(Working, lease.delivery, interval=self.leases.extension_interval)

    def refused(self, error: NatsJobsError) -> None:
        self._intake.recheck_consumer(error)

    def on_rival_claim(self, lease: Lease) -> None:
        self._claims.announce(lease.delivery)

    def gave_way(self) -> None:
        self._slots.wake()

    def loop_held(self, attempt: Attempt, seconds: float) -> None:
        logger.warning(
            "%r blocked the event loop for %.1f s; leases last %g s", attempt, seconds, self.site.ack_wait
        )
        self._report.job(LoopBlocked, attempt.delivery, seconds=seconds)

    def not_confirmed(self, lease: Lease, reason: str) -> None:
        assert lease.settlement is not None
        self._report.job(NoAck, lease.delivery, settlement=lease.settlement.name, reason=reason)
