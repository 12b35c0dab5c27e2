"""A schedule among those of a processor: when to look at it, and whether it was told to stop."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import anyio

from ._follower import Follower
from ._runner import Runner
from ._schedule import Schedule

__all__ = ("Entry",)


class Entry:
    """See `Declared`.

    Attributes:
        runner: of a function that recurs; None when its jobs are enqueued.
        follower: None before stream and record stand.
        due: when to look at it; None while that is not known.
        tries: how often it went wrong since it last went well.
        ended: set when it is followed no longer.
    """

    def __init__(
        self, schedule: Schedule[Any], *, awaited: bool = False, runner: Runner | None = None
    ) -> None:
        self.schedule = schedule
        self.runner = runner
        self.follower: Follower | None = None
        self.due: datetime | None = None
        self.tries = 0
        self.ended = anyio.Event()
        self.stopping = False
        self.busy = False
        self.changed = False
        self._awaited = awaited
        self._settled = anyio.Event()
        self._error: Exception | None = None

    @property
    def id(self) -> str:
        return self.schedule.id

    @property
    def next_tick(self) -> datetime | None:
        return None if self.follower is None or self.ended.is_set() else self.due

    async def wait_known(self) -> None:
        """Wait until the first tick is known. Raises what kept it from that."""
        await self._settled.wait()
        if self._error is not None:
            raise self._error

    def known(self) -> None:
        """The first tick is known."""
        self._settled.set()

    def failed(self, error: Exception) -> bool:
        """Tell whoever waits what went wrong; return whether anybody does."""
        if not self._awaited or self._settled.is_set():
            return False

        self._error = error
        self._settled.set()
        return True

    def end(self) -> None:
        self.due = None
        self._settled.set()
        self.ended.set()
