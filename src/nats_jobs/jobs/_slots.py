"""The tasks that perform jobs: at most `limit`, made when needed and used again.

One slot is woken when something is ready. It takes the next slot along only when its own job gives way
for the first time; a job that never waits for anything is followed by the next one in the same slot. So
small jobs cost no switch of tasks, and waiting ones get as many slots as there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

__all__ = ("Slots",)

W = TypeVar("W")

# Jobs that one slot performs without giving way to the event loop, so that leases and links are served.
_IN_A_ROW = 32


class Slots(Generic[W]):
    """Performs what `take` hands out, until `take` has nothing left; `wake` says that there is something.

    Args:
        group: the tasks live in it.
        limit: how many at most.
        take: returns the next piece of work, or None.
        perform: sees one piece through. It calls `wake` when it first gives way.
        freed: called when a slot has become free.
    """

    def __init__(
        self,
        group: TaskGroup,
        limit: int,
        take: Callable[[], W | None],
        perform: Callable[[W], Awaitable[None]],
        freed: Callable[[], None],
    ) -> None:
        self.busy = 0
        self._group = group
        self._limit = limit
        self._take = take
        self._perform = perform
        self._freed = freed
        self._slots = 0
        self._parked: deque[anyio.Event] = deque()
        self._on_its_way = False
        self._idle: anyio.Event | None = None

    def wake(self) -> None:
        """See to it that a free slot, if there is one, looks for work."""
        if self._on_its_way:
            return

        if self._parked:
            self._on_its_way = True
            self._parked.popleft().set()
        elif self._slots < self._limit:
            self._on_its_way = True
            self._slots += 1
            self._group.start_soon(self._slot)

    async def wait_idle(self) -> None:
        """Wait until no slot is performing anything."""
        while self.busy:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def _slot(self) -> None:
        in_a_row = 0
        while True:
            self._on_its_way = False
            work = self._take()
            if work is None:
                await self._park()
                in_a_row = 0
                continue

            self.busy += 1
            try:
                await self._perform(work)
            finally:
                self.busy -= 1
                if self._idle is not None and not self.busy:
                    self._idle.set()

            self._freed()
            in_a_row += 1
            if in_a_row == _IN_A_ROW:
                in_a_row = 0
                await checkpoint()

    async def _park(self) -> None:
        event = anyio.Event()
        self._parked.append(event)
        await event.wait()
