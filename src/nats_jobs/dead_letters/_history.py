"""Why a job was parked, round after round, in one header of bounded length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .._untrusted import field_of, parse_json, parse_moment
from ..errors import Malformed
from ..units import utc_text
from ._fitting import one_line

__all__ = ("Round", "read_history", "write_history")

_WHAT = "history of a dead letter"
_MAX_ROUNDS = 20
_MAX_TEXT = 200
_MAX_BYTES = 8192


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
    texts = [_write(entry) for entry in rounds[-_MAX_ROUNDS:]]
    while sum(len(text) + 1 for text in texts) + 1 > _MAX_BYTES:
        del texts[0]

    return f"[{','.join(texts)}]"


def read_history(text: str | None) -> tuple[Round, ...]:
    """Read what `write_history` wrote; nothing of what is not like that: any producer can send such a header."""
    if text is None:
        return ()

    try:
        entries = parse_json(text, _WHAT, max_bytes=_MAX_BYTES)
        return tuple(_read(fields) for fields in entries) if isinstance(entries, list) else ()
    except Malformed:
        return ()


def _write(entry: Round) -> str:
    fields = {
        "at": utc_text(entry.parked_at),
        "reason": entry.reason,
        "attempts": entry.attempts,
        "type": entry.error_type,
        "error": one_line(entry.error, _MAX_TEXT),
    }
    # ASCII only: a character is a byte.
    return json.dumps(fields, separators=(",", ":"))


def _read(fields: Any) -> Round:
    return Round(
        parked_at=parse_moment(field_of(fields, "at", str, _WHAT), _WHAT),
        reason=_text(fields, "reason"),
        attempts=field_of(fields, "attempts", int, _WHAT),
        error_type=_text(fields, "type"),
        error=_text(fields, "error"),
    )


def _text(fields: Any, name: str) -> str:
    # JSON can spell characters that UTF-8 does not have, and that could not be shown or sent again.
    return one_line(field_of(fields, name, str, _WHAT), _MAX_TEXT)
