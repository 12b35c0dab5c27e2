"""Task groups wrap what their children raise; callers of a library should not have to unwrap it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from anyio.abc import TaskGroup, TaskStatus

__all__ = ("outliving_group", "sole_exception", "text_of", "unwrapped")


def sole_exception(error: BaseException) -> BaseException | None:
    """Return the only exception inside nested groups; None when there are several."""
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) != 1:
            return None

        error = error.exceptions[0]

    return error


def text_of(error: BaseException) -> str:
    """Return the text of an error, of each of them when it is a group; whatever its class does when asked."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(text_of(inner) for inner in error.exceptions)

    try:
        return str(error)
    except Exception as trouble:
        # The user's class. A job must not be lost for it.
        return f"its text cannot be had: {type(trouble).__qualname__}"


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise an exception that is alone in its groups as itself; several stay a group."""
    only: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        only = sole_exception(group)
        if only is None:
            raise

    if only is not None:
        # Outside the except block, or the group would come along as its context.
        raise only


@asynccontextmanager
async def outliving_group(why: str) -> AsyncIterator[TaskGroup]:
    """A task group whose tasks go on while the block is being cancelled, and end when the block has ended.

    What a block needs to clean up after itself (a connection, a lease keeper) lives here. The tasks are
    shielded from the cancellation of what is around, for as long as the block takes to unwind and no
    longer, so the block must bound its own cleaning up. A task that fails cancels the block, as in every
    task group.
    """
    async with anyio.create_task_group() as outer:
        inner: TaskGroup = await outer.start(_sheltered)
        try:
            yield inner
        finally:
            inner.cancel_scope.cancel(why)


async def _sheltered(*, task_status: TaskStatus[TaskGroup]) -> None:
    async with anyio.create_task_group() as inner:
        inner.cancel_scope.shield = True
        task_status.started(inner)
        await anyio.sleep_forever()
