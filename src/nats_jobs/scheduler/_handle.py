"""A schedule that was declared, as its declarer sees it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..jobs import check_grace
from ._entry import Entry

__all__ = ("ScheduleHandle",)


class ScheduleHandle:
    """A schedule that this processor follows: what `schedule` and `start_schedule` return."""

    def __init__(self, entry: Entry, remove: Callable[[Entry, float | None], None]) -> None:
        self._entry = entry
        self._remove = remove

    @property
    def id(self) -> str:
        return self._entry.id

    @property
    def next_tick(self) -> datetime | None:
        """The next tick as far as is known here, UTC. None before it is known, while paused, and after the last one."""
        return self._entry.next_tick

    async def stop(self, *, grace: float | None = None) -> None:
        """Follow the schedule no longer here, and wait until what is under way has ended. Other processes go on.

        Args:
            grace: seconds that a recurring function which is running may go on. Default: the processor's.
        """
        check_grace("grace", grace)
        self._remove(self._entry, grace)
        await self._entry.ended.wait()

    async def wait_stopped(self) -> None:
        """Wait until it is followed no longer, for whatever reason: it was stopped or removed, or has no further tick."""
        await self._entry.ended.wait()

    def __repr__(self) -> str:
        return f"ScheduleHandle({self.id!r})"
