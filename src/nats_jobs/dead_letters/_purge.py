"""Throwing dead letters away."""

from __future__ import annotations

from datetime import datetime

from ._box import Box, HasApi
from ._browse import Letters, existing
from ._selection import Selection

__all__ = ("purge", "remove")


async def remove(processor: HasApi, sequence: int) -> None:
    """Throw one dead letter away.

    Raises:
        UsageError: there is none with this sequence.
    """
    box = Box(processor.api)
    await existing(box, sequence)
    await box.remove(sequence)


async def purge(
    processor: HasApi,
    *,
    stream: str | None = None,
    reason: str | None = None,
    before: datetime | None = None,
) -> int:
    """Throw dead letters away, and return how many: all of them, unless told which.

    Those that come while it works stay. With `reason` or `before` they go one by one; cancelled or failed,
    it has removed the oldest.

    Args:
        stream, reason, before: as for `browse`.

    Raises:
        UsageError: an argument that cannot work.
    """
    selection = Selection(stream, reason, before)
    box = Box(processor.api)
    if selection.is_by_subject:
        state = await box.state()
        return await box.purge(selection.subject, state.last_sequence) if state is not None else 0

    removed = 0
    async for letter in Letters(box, selection, after=0, limit=None):
        removed += await box.remove(letter.sequence)

    return removed
