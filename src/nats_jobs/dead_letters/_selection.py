"""Which dead letters are meant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import UsageError
from ._letter import DeadLetter
from ._stream import SUBJECTS, subject_of

__all__ = ("Selection", "check_count")


@dataclass(frozen=True, slots=True)
class Selection:
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

    def takes(self, letter: DeadLetter) -> bool:
        """Whether a letter on `subject` is one of them."""
        return self.reason in (None, letter.reason) and (
            self.before is None or letter.parked_at < self.before
        )


def check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} is {value!r}; a whole number, {least} or more, is needed")
