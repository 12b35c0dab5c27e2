"""Task groups wrap what their children raise; callers of a library should not have to unwrap it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from anyio.abc import TaskGroup

__all__ = ("outliving_group", "sole_exception", "text_of", "unwrapped")


def sole_exception(error: BaseException) -> BaseException | None:
    """Return the only exception inside nested groups; None when there are several."""
    inner = _innermost(error)
    return None if isinstance(inner, BaseExceptionGroup) else inner


def _innermost(error: BaseException) -> BaseException:
    """Return what is inside of groups that have only one: an exception, or a group of several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]

    return error


def text_of(error: BaseException) -> str:
    """Return the text of an error, of each of them when it is a group; whatever its class does when asked."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(text_of(inner) for inner in error.exceptions)

    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as trouble:
        # The user's class. A job must not be lost for it.
        return f"its text cannot be had: {type(trouble).__qualname__}"


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise an exception that is alone in its groups as itself; several stay one group, the innermost that has them all."""
    inner: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        inner = _innermost(group)
        if inner is group:
            raise

    if inner is not None:
        # Outside the except block, or the group would come along as its context.
        raise inner


@asynccontextmanager
async def outliving_group(why: str) -> AsyncIterator[TaskGroup]:
    """A task group whose tasks go on while the block is being cancelled, and end when the block has ended.

    What a block needs to clean up after itself (a connection, a lease keeper) lives here. The tasks are
    shielded from the cancellation of what is around, for as long as the block takes to unwind and no
    longer, so the block must bound its own cleaning up. A task that fails cancels the block, as in every
    task group.
    """
    shelter = _Shelter()
    async with anyio.create_task_group() as outer:
        outer.start_soon(shelter.hold)
        try:
            # It takes one turn of the event loop.
            with anyio.CancelScope(shield=True):
                await shelter.opened.wait()

            yield shelter.group
        finally:
            shelter.scope.cancel(why)


class _Shelter:
    """A task that holds a shielded group open until `scope` is cancelled.

    Not with `TaskGroup.start`: a caller that is cancelled there waits for the new task to end, and this one, shielded,
    never would. `scope` can be cancelled before the task has had its first turn.
    """

    def __init__(self) -> None:
        self.scope = anyio.CancelScope(shield=True)
        self.opened = anyio.Event()
        self.group: TaskGroup

    async def hold(self) -> None:
        with self.scope:
            async with anyio.create_task_group() as self.group:
                self.opened.set()
                await anyio.sleep_forever()

        if not self.scope.cancel_called:
            # AnyIO ends a group quietly when somebody else has cancelled one of its asyncio tasks.
            raise RuntimeError(
                "a task of the library was cancelled from outside, which has ended its task group"
            )
