"""Reading dead letters, one at a time: memory holds one, however many there are."""

from __future__ import annotations

import math
from datetime import datetime

from ..errors import UsageError
from ._box import Box, HasApi
from ._letter import DeadLetter
from ._selection import Selection, check_count

__all__ = ("Letters", "browse", "count", "existing", "show")


class Letters:
    """Dead letters, the oldest first: `async for letter in browse(p)`. Each is read when it is asked for.

    It ends with the last letter that was there when the first was asked for. To be used once, by one task.
    """

    def __init__(self, box: Box, selection: Selection, *, after: int, limit: int | None) -> None:
        self._box = box
        self._selection = selection
        self._next = after + 1
        self._last: int | None = None
        self._left = math.inf if limit is None else limit

    def __aiter__(self) -> Letters:
        return self

    async def __anext__(self) -> DeadLetter:
        if self._last is None:
            state = await self._box.state()
            self._last = state.last_sequence if state is not None else 0

        while self._left > 0 and self._next <= self._last:
            letter = await self._box.next_letter(self._next, self._selection.subject)
            if letter is None or letter.sequence > self._last:
                break

            self._next = letter.sequence + 1
            if self._selection.takes(letter):
                self._left -= 1
                return letter

        self._left = 0
        raise StopAsyncIteration


def browse(
    processor: HasApi,
    *,
    stream: str | None = None,
    reason: str | None = None,
    before: datetime | None = None,
    after: int = 0,
    limit: int | None = None,
) -> Letters:
    """Read dead letters, the oldest first: `async for letter in browse(p, stream="ORDERS")`.

    The server selects by stream; with `reason` or `before` all letters of the stream are read.

    Args:
        stream: only those of jobs of this stream.
        reason: only those that were parked for this reason, one of `REASONS`.
        before: only those parked before this aware datetime.
        after: only those with a higher sequence; to go on where an earlier call ended.
        limit: this many at most.

    Raises:
        UsageError: an argument that cannot work.
    """
    check_count("after", after, 0)
    if limit is not None:
        check_count("limit", limit, 1)

    return Letters(Box(processor.api), Selection(stream, reason, before), after=after, limit=limit)


async def count(
    processor: HasApi,
    *,
    stream: str | None = None,
    reason: str | None = None,
    before: datetime | None = None,
) -> int:
    """Count dead letters: one request for all, or for a stream; with `reason` or `before` they are read. See `browse`."""
    selection = Selection(stream, reason, before)
    box = Box(processor.api)
    if selection.is_by_subject:
        return await box.count(selection.subject)

    total = 0
    async for _ in Letters(box, selection, after=0, limit=None):
        total += 1

    return total


async def show(processor: HasApi, sequence: int) -> DeadLetter:
    """Return one dead letter.

    Raises:
        UsageError: there is none with this sequence.
    """
    return await existing(Box(processor.api), sequence)


async def existing(box: Box, sequence: int) -> DeadLetter:
    check_count("sequence", sequence, 1)
    letter = await box.letter(sequence)
    if letter is None:
        raise UsageError(f"there is no dead letter {sequence}; it may have been redriven or removed")

    return letter
