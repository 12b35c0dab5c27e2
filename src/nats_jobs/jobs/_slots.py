"""The tasks that perform jobs: at most `limit`, made when needed and used again.

One slot is woken when something is ready. It takes the next slot along only when its own job gives way
for the first time; a job that never waits for anything is followed by the next one in the same slot. So
small jobs cost no switch of tasks, and waiting ones get as many slots as there are.

A task is used again only if the last job left it as it was. If not, or when somebody else has cancelled it,
it ends, and another one takes its place, also for what was left to do for that job. It has a group of its own:
whatever a job has left open in it, a scope, a task group, ends with that group, and spoils nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from .._groups import unwrapped
from ._emitter import logger
from ._task_watch import TaskWatch

__all__ = ("Rest", "Slots")

W = TypeVar("W")

Rest: TypeAlias = Callable[[], Awaitable[None]]
"""What is left to do for a piece of work, in a task that it has not touched."""

# Jobs that one slot performs without giving way to the event loop, so that leases and links are served.
_IN_A_ROW = 32


class _Task:
    """What has become of a slot's task: whether it has ended by itself, and what it left to another one."""

    __slots__ = ("ended", "left")

    def __init__(self) -> None:
        self.ended = False
        self.left: Rest | None = None


class Slots(Generic[W]):
    """Performs what `take` hands out, until `take` has nothing left; `wake` says that there is something.

    Args:
        limit: how many at most.
        take: returns the next piece of work, or None.
        perform: sees one piece through. It calls `wake` when it first gives way, and returns what it leaves
            to another task, if anything.
        freed: called when a slot has become free.
    """

    def __init__(
        self,
        limit: int,
        take: Callable[[], W | None],
        perform: Callable[[W, TaskWatch], Awaitable[Rest | None]],
        freed: Callable[[], None],
    ) -> None:
        self.busy = 0
        self._group: TaskGroup | None = None
        self._limit = limit
        self._take = take
        self._perform = perform
        self._freed = freed
        self._slots = 0
        self._parked: deque[anyio.Event] = deque()
        self._on_its_way = False
        self._idle: anyio.Event | None = None

    def open(self, group: TaskGroup) -> None:
        """Let tasks be started in this group, which must outlive all that `take` hands out."""
        self._group = group

    def wake(self) -> None:
        """See to it that a free slot, if there is one, looks for work."""
        if self._on_its_way:
            return

        if self._parked:
            self._on_its_way = True
            self._parked.popleft().set()
        elif self._slots < self._limit:
            self._on_its_way = True
            self._start()

    async def wait_idle(self) -> None:
        """Wait until no slot is performing anything."""
        while self.busy:
            self._idle = anyio.Event()
            await self._idle.wait()

    def _start(self, rest: Rest | None = None) -> None:
        assert self._group is not None
        self._slots += 1
        self._group.start_soon(self._slot, rest)

    async def _slot(self, rest: Rest | None) -> None:
        """Keep a task in a group of its own, until a job has spoilt it or a stray cancellation ends it; another one follows."""
        task = _Task()
        try:
            with unwrapped():
                async with anyio.create_task_group() as around:
                    around.start_soon(self._live, task, rest, around.cancel_scope)
        except Exception:
            # Then it is only what the event loop says about scopes that were left open. Their job was told.
            if not task.ended:
                raise
        finally:
            if task.left is not None:
                self._start(task.left)

        self._slots -= 1
        if not task.ended:
            logger.warning(
                "a task that performs jobs was cancelled from outside; another one takes its place"
            )

        self.wake()

    async def _live(self, task: _Task, rest: Rest | None, scope: anyio.CancelScope) -> None:
        task.left = await self._serve(rest)
        task.ended = True
        scope.cancel("a job has changed the task that performed it")

    async def _serve(self, rest: Rest | None) -> Rest | None:
        """Perform one piece of work after the other. Return when the task is not to be used again, with what is left to do."""
        watch = TaskWatch()
        if rest is not None:
            try:
                await rest()
            finally:
                self._release()

            self._freed()

        in_a_row = 0
        while True:
            self._on_its_way = False
            work = self._take()
            if work is None:
                await self._park()
                in_a_row = 0
                continue

            self.busy += 1
            left: Rest | None = None
            try:
                left = await self._perform(work, watch)
            finally:
                if left is None:
                    self._release()

            if left is not None:
                return left

            self._freed()
            if watch.is_disturbed():
                return None

            in_a_row += 1
            if in_a_row == _IN_A_ROW:
                in_a_row = 0
                await checkpoint()

    def _release(self) -> None:
        self.busy -= 1
        if self._idle is not None and not self.busy:
            self._idle.set()

    async def _park(self) -> None:
        event = anyio.Event()
        self._parked.append(event)
        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                # It was woken for work that it cannot take any more.
                self._on_its_way = False
            else:
                self._parked.remove(event)

            raise
