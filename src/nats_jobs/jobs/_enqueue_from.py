"""Enqueueing from a source of any length: a part of it at a time, so that memory stays as it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from typing import TypeAlias, TypeVar

from ..errors import EnqueueFailed, NatsJobsError
from ..jetstream import Enqueued

__all__ = ("PART_SIZE", "Send", "enqueue_parts")

T = TypeVar("T")

PART_SIZE = 4096
"""Payloads that are read before they are sent: as many as are unanswered at a time."""

Send: TypeAlias = Callable[[list[T], list[str] | None], Awaitable[list[Enqueued]]]


async def enqueue_parts(
    send: Send[T],
    payloads: Iterable[T] | AsyncIterable[T],
    id_of: Callable[[T], str] | None,
    on_progress: Callable[[int], object] | None,
) -> int:
    """Send all payloads in parts, the next one read when the last is confirmed; return how many there were.

    What the source had handed over when it raised is sent before its error is raised on.
    """
    done = 0
    async with AsyncExitStack() as stack:
        source = payloads if isinstance(payloads, AsyncIterable) else _each(payloads)
        if isinstance(source, AsyncGenerator):
            # Nobody else goes on with it when this fails.
            await stack.enter_async_context(aclosing(source))

        parts = await stack.enter_async_context(aclosing(_parts(source)))
        async for part in parts:
            await _send(send, part, id_of, done)
            done += len(part)
            # Else it would be held while the next is read.
            del part
            if on_progress is not None:
                on_progress(done)

    return done


async def _send(send: Send[T], part: list[T], id_of: Callable[[T], str] | None, done: int) -> None:
    ids = None if id_of is None else [id_of(payload) for payload in part]
    try:
        await send(part, ids)
    except EnqueueFailed as failed:
        failures = {done + position: error for position, error in failed.failures.items()}
        raise EnqueueFailed(failures, done + len(part)) from failed
    except NatsJobsError as error:
        if not done:
            raise

        # Bad input: nothing of this part was sent, and the parts before it are stored.
        positions = range(done, done + len(part))
        raise EnqueueFailed(dict.fromkeys(positions, error), done + len(part)) from error


async def _parts(source: AsyncIterable[T]) -> AsyncGenerator[list[T], None]:
    part: list[T] = []
    try:
        async for payload in source:
            part.append(payload)
            if len(part) == PART_SIZE:
                yield part
                part = []
    except Exception:
        if part:
            yield part

        raise

    if part:
        yield part


async def _each(payloads: Iterable[T]) -> AsyncGenerator[T, None]:
    for payload in payloads:
        yield payload
