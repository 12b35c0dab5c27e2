"""Whether a task is still as it was: what runs in it may have changed more than its own variables."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint, current_token

__all__ = ("TaskWatch", "absorb_cancellation", "is_cancelled_from_around")


class TaskWatch:
    """Remembers the current task's name and pending cancellations, and says later whether they have changed."""

    __slots__ = ("_before", "_scope", "_scope_of_task", "_state")

    def __init__(self) -> None:
        on_asyncio = _on_asyncio()
        self._state = _asyncio_state() if on_asyncio else _trio_state()
        self._before = self._state()
        self._scope_of_task = _asyncio_scope() if on_asyncio else None
        self._scope = self._scope_of_task() if self._scope_of_task else None

    def is_disturbed(self) -> bool:
        """Whether something in the task has renamed it, or asked for its cancellation."""
        return self._state() != self._before

    def close_scopes(self) -> None:
        """Leave the scopes that were left open in the task, and cancel what may still run in them.

        Trio does so by itself when an outer one is left. AnyIO's asyncio scopes stay, and a task that ends in one
        of them breaks its own group.
        """
        if self._scope_of_task is None:
            return

        while (scope := self._scope_of_task()) is not None and scope is not self._scope:
            scope.cancel("a job has left it open")
            scope.__exit__(None, None, None)


def is_cancelled_from_around() -> bool:
    """Whether a scope around the current task is cancelled; if not, a cancellation here is a stray one."""
    return anyio.current_effective_deadline() == -math.inf


async def absorb_cancellation() -> None:
    """Take a cancellation that is pending for the current task, which is about to end: AnyIO would end its group for it."""
    try:
        await checkpoint()
    except anyio.get_cancelled_exc_class():
        return


def _on_asyncio() -> bool:
    return isinstance(current_token().native_token, asyncio.AbstractEventLoop)


def _asyncio_state() -> Callable[[], object]:
    task = asyncio.current_task()
    assert task is not None
    cancelling, get_name = task.cancelling, task.get_name
    return lambda: (cancelling(), get_name())


def _asyncio_scope() -> Callable[[], anyio.CancelScope | None]:
    # There is no public way to ask for the innermost scope of a task.
    from anyio._backends import _asyncio

    task = asyncio.current_task()
    states: Any = _asyncio._task_states

    def scope_of_task() -> anyio.CancelScope | None:
        state = states.get(task)
        return state.cancel_scope if state is not None else None

    return scope_of_task


def _trio_state() -> Callable[[], object]:
    import trio

    task = trio.lowlevel.current_task()
    return lambda: task.name
