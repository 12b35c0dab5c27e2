"""Reading dead letters, one at a time: memory holds one, however many there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import UsageError
from ._dead_letter import DeadLetter
from ._headers import SUBJECTS, subject_of
from ._store import DeadLetterStore

__all__ = ("DeadLetterIterator", "Filter", "check_count")


@dataclass(frozen=True, slots=True)
class Filter:
    """Those of a stream, with a reason, parked before a moment; None for any."""

    stream: str | None = None
    reason: str | None = None
    before: datetime | None = None

    def __post_init__(self) -> None:
        # What a caller without a type checker may give.
        stream: Any = self.stream
        reason: Any = self.reason
        before: Any = self.before
        if stream is not None and (
            not isinstance(stream, str) or not stream or set(stream) & set(" .*>\r\n\t")
        ):
            raise UsageError(f"stream is {stream!r}; the name of the jobs' stream is needed")

        if reason is not None and (not isinstance(reason, str) or not reason):
            raise UsageError(f"reason is {reason!r}; one of dead_letters.REASONS is needed")

        if before is not None and (not isinstance(before, datetime) or before.tzinfo is None):
            raise UsageError(f"before is {before!r}; a datetime with a time zone is needed")

    @property
    def subject(self) -> str:
        """The subject that the server can select by."""
        return SUBJECTS if self.stream is None else subject_of(self.stream)

    @property
    def is_by_subject(self) -> bool:
        """Whether the server can make the whole selection."""
        return self.reason is None and self.before is None

    def matches(self, letter: DeadLetter) -> bool:
        """Whether a letter on `subject` is one of them."""
        return self.reason in (None, letter.reason) and (
            self.before is None or letter.parked_at < self.before
        )


def check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} is {value!r}; a whole number, {least} or more, is needed")


class DeadLetterIterator:
    """Dead letters, the oldest first: `async for letter in p.dead_letters.browse()`. Each is read when it is asked for.

    It ends with the last letter that was there when the first was asked for. To be used once, by one task.
    """

    def __init__(self, store: DeadLetterStore, chosen: Filter, *, after: int, limit: int | None) -> None:
        self._store = store
        self._filter = chosen
        self._next = after + 1
        self._last: int | None = None
        self._left = math.inf if limit is None else limit

    def __aiter__(self) -> DeadLetterIterator:
        return self

    async def __anext__(self) -> DeadLetter:
        if self._last is None:
            state = await self._store.state()
            self._last = state.last_sequence if state is not None else 0

        while self._left > 0 and self._next <= self._last:
            letter = await self._store.next_letter(self._next, self._filter.subject)
            if letter is None or letter.sequence > self._last:
                break

            self._next = letter.sequence + 1
            if self._filter.matches(letter):
                self._left -= 1
                return letter

        self._left = 0
        raise StopAsyncIteration
