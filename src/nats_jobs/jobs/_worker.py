"""A worker: one definition, started. It sets up its consumer, has an engine perform the jobs, and can be told to stop."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskStatus

from ..events import Stop
from ._bound_consumer import BoundConsumer
from ._context import WorkerContext
from ._definition import JobDef
from ._engine import Engine
from ._handlers import async_handler
from ._job import Job
from ._settle import Counts
from ._setup import set_up
from ._shutdown import Shutdown

__all__ = ("Worker", "WorkerStatistics")

T = TypeVar("T")


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

    def __init__(self, defn: JobDef[T], context: WorkerContext) -> None:
        self.defn = defn
        self.ended = anyio.Event()
        self.engine: Engine | None = None
        self._context = context
        self._shutdown = Shutdown(context.stop_grace if defn.stop_grace is None else defn.stop_grace)
        self._counts = Counts()

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
            consumer = None if self.stopping else await self._set_up()
            if consumer is None:
                task_status.started()
                return

            async with async_handler(self.defn) as handler:
                self.engine = Engine(
                    self.defn,
                    self._context,
                    self._context.middleware.wrap(handler),
                    consumer,
                    self._shutdown,
                    self._counts,
                )
                await self.engine.run(task_status)
        finally:
            self._shutdown.requested.set()
            self.ended.set()

    async def _set_up(self) -> BoundConsumer | None:
        """Return None when told to stop meanwhile: nobody may be there to answer, and a stop does not wait for that."""
        api = self._context.api
        # A server without JetStream says so in its greeting; else no answer is worth waiting for.
        may_answer = api.connection.server_info.get("jetstream") or not api.is_local
        patience = self._context.enqueue_timeout if may_answer else 0.0
        with self._shutdown.setting_up:
            return await set_up(api, self.defn, patience=patience)

        return None

    def ask_to_stop(self, grace: float | None = None) -> None:
        """Begin to stop, or shorten the grace. Raises as `Shutdown.request` does."""
        told_before = self.stopping
        self._shutdown.request(grace)
        if self.engine is not None and not told_before:
            left = self._shutdown.grace_ends - anyio.current_time()
            self.engine.report.worker(Stop, grace=left, running=len(self.running))

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop, or has ended."""
        return self._shutdown.requested.is_set()

    @property
    def running(self) -> tuple[Job[T], ...]:
        """The jobs in hand."""
        return (
            () if self.engine is None else tuple(attempt.job for attempt in self.engine.attempts.under_way())
        )

    def statistics(self) -> WorkerStatistics:
        waiting = 0 if self.engine is None else len(self.engine.dispatcher)
        return WorkerStatistics(running=len(self.running), waiting=waiting, **asdict(self._counts))
