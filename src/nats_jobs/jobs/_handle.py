"""A started definition, as its starter sees it."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from ._definition import JobDef
from ._worker import Worker, WorkerStatistics

__all__ = ("JobHandle",)

T = TypeVar("T")


class JobHandle(Generic[T]):
    """A definition that was started: what `start_soon` returns."""

    def __init__(self, worker: Worker[T]) -> None:
        self._worker = worker

    @property
    def defn(self) -> JobDef[T]:
        return self._worker.defn

    @property
    def running(self) -> tuple[Any, ...]:
        """The jobs in hand, as `Job`s."""
        return self._worker.running

    def statistics(self) -> WorkerStatistics:
        """Return the counts so far."""
        return self._worker.statistics()

    async def stop(self, *, grace: float | None = None) -> None:
        """Stop this definition, and wait until it has ended. Safe to call twice; a later call can shorten the grace.

        Args:
            grace: seconds that running jobs may go on. Default: the definition's, else the processor's.
        """
        self._worker.ask_to_stop(grace)
        await self._worker.ended.wait()

    async def wait_stopped(self) -> None:
        """Wait until it has ended, for whatever reason."""
        await self._worker.ended.wait()

    def __repr__(self) -> str:
        return f"JobHandle({self._worker.defn!r})"
