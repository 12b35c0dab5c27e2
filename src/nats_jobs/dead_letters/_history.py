"""Why a job was parked, round after round, in one header of bounded length."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..units import utc_text
from ._fitting import one_line

__all__ = ("Round", "read_history", "write_history")

_MOST_ROUNDS = 20
_LONGEST_ERROR = 200
_MOST_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A job was parked once. In a history the text of the error is cut to 200 characters."""

    parked_at: datetime
    reason: str
    attempts: int
    error_type: str
    error: str


def write_history(rounds: Sequence[Round]) -> str:
    """Return the newest of `rounds`: 20 at most, in 8 KiB at most."""
    texts = [_write(entry) for entry in rounds[-_MOST_ROUNDS:]]
    while sum(len(text) + 1 for text in texts) + 1 > _MOST_BYTES:
        del texts[0]

    return f"[{','.join(texts)}]"


def read_history(text: str | None) -> tuple[Round, ...]:
    """Read what `write_history` wrote; nothing of what is not like that."""
    try:
        return tuple(_read(fields) for fields in json.loads(text or "[]"))
    except (ValueError, TypeError, KeyError):
        return ()


def _write(entry: Round) -> str:
    fields = {
        "at": utc_text(entry.parked_at),
        "reason": entry.reason,
        "attempts": entry.attempts,
        "type": entry.error_type,
        "error": one_line(entry.error, _LONGEST_ERROR),
    }
    # ASCII only: a character is a byte.
    return json.dumps(fields, separators=(",", ":"))


def _read(fields: Mapping[str, Any]) -> Round:
    return Round(
        parked_at=datetime.fromisoformat(fields["at"]),
        reason=str(fields["reason"]),
        attempts=int(fields["attempts"]),
        error_type=str(fields["type"]),
        error=str(fields["error"]),
    )
