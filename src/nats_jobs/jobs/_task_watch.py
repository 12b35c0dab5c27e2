"""Whether a task is still as it was: what runs in it may have changed more than its own variables."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import anyio
from anyio.lowlevel import current_token

__all__ = ("TaskWatch", "is_cancelled_from_around")


class TaskWatch:
    """Remembers the current task's name and pending cancellations, and says later whether they have changed."""

    __slots__ = ("_before", "_state")

    def __init__(self) -> None:
        self._state = _asyncio_state() if _on_asyncio() else _trio_state()
        self._before = self._state()

    def is_disturbed(self) -> bool:
        """Whether something in the task has renamed it, or asked for its cancellation."""
        return self._state() != self._before


def is_cancelled_from_around() -> bool:
    """Whether a scope around the current task is cancelled; if not, a cancellation here is a stray one."""
    return anyio.current_effective_deadline() == -math.inf


def _on_asyncio() -> bool:
    return isinstance(current_token().native_token, asyncio.AbstractEventLoop)


def _asyncio_state() -> Callable[[], object]:
    task = asyncio.current_task()
    assert task is not None
    cancelling, get_name = task.cancelling, task.get_name
    return lambda: (cancelling(), get_name())


def _trio_state() -> Callable[[], object]:
    import trio

    task = trio.lowlevel.current_task()
    return lambda: task.name
