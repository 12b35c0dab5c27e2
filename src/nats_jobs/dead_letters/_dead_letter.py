"""A dead letter, as it is read from the stream. Whatever a foreign client has put there can be read.

Why its job was parked before is in one header of bounded length.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .._untrusted import field_of, parse_json, parse_moment, parse_number
from ..codecs import RAW, by_content_type
from ..errors import Malformed
from ..units import utc_text
from ..wire import Headers, parse_headers
from ._headers import Header, headers_of_job, one_line, subject_of

__all__ = ("DeadLetter", "Failure", "read_history", "read_letter", "write_history")

_UNKNOWN = "unknown"
_HISTORY = "history of a dead letter"
_MAX_FAILURES = 20
_MAX_TEXT = 200
_MAX_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A job was parked once. In a history the text of the error is cut to 200 characters."""

    parked_at: datetime
    reason: str
    attempts: int
    error_type: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that was parked, and why.

    A job so large that the server takes little or nothing besides it lacks what is said to be missing below.
    """

    sequence: int
    """Its number in DEAD_LETTERS: what `get`, `redrive` and `remove` are given."""

    stream: str
    """The stream of the job."""

    subject: str
    """The subject of the job, to which it is redriven."""

    original_sequence: int
    """Its sequence in that stream; 0 when it is missing."""

    consumer: str
    """The consumer that gave it out last; empty when it is missing."""

    id: str | None
    """The id it was enqueued with first."""

    reason: str
    """One of `REASONS`; `unknown` when it is missing."""

    error_type: str
    error: str
    """The text of the error, on one line, cut to 2000 characters; empty when it is missing."""

    attempts: int
    """The number of the last attempt; 0 when it is missing."""

    enqueued_at: datetime | None
    """When the server stored the job, last time."""

    parked_at: datetime
    """When the server stored the dead letter."""

    headers: Headers
    """Those that came with the job."""

    data: bytes
    """The payload as it is in the stream."""

    redriven: int
    """How often it was given back before."""

    history: tuple[Failure, ...]
    """Why it was parked, each time; this time is the last. Of many rounds the oldest are left out."""

    def payload(self) -> Any:
        """Decode the payload by its content type; without one it is bytes.

        Raises:
            DecodeError: it is not what its content type says.
        """
        codec = by_content_type(self.headers.get("Content-Type", "")) or RAW
        return codec.decode(self.data)

    @property
    def redrive_id(self) -> str:
        """The message id for redriving this very letter: the same each time it is tried, and never that of another."""
        return f"redrive:{self.sequence}:{self.stream}:{self.original_sequence}:{utc_text(self.parked_at)}"


def read_letter(message: Mapping[str, Any]) -> DeadLetter:
    """Read a message, as the server's API gives it."""
    block = parse_headers(b64decode(message.get("hdrs", "")))
    parked_at = datetime.fromisoformat(message["time"])
    stream, subject = _origin(message["subject"], block)
    last = Failure(
        parked_at=parked_at,
        reason=block.get(Header.REASON, _UNKNOWN),
        attempts=_number(block, Header.ATTEMPTS),
        error_type=block.get(Header.ERROR_TYPE, ""),
        error=block.get(Header.ERROR, ""),
    )
    return DeadLetter(
        sequence=message["seq"],
        stream=stream,
        subject=subject,
        original_sequence=_number(block, Header.SEQUENCE),
        consumer=block.get(Header.CONSUMER, ""),
        id=block.get(Header.ORIGINAL_ID),
        reason=last.reason,
        error_type=last.error_type,
        error=last.error,
        attempts=last.attempts,
        enqueued_at=_moment(block.get(Header.ENQUEUED_AT, "")),
        parked_at=parked_at,
        headers=headers_of_job(block),
        data=b64decode(message.get("data", "")),
        redriven=_number(block, Header.REDRIVEN),
        history=(*read_history(block.get(Header.HISTORY)), last),
    )


def _origin(place: str, headers: Headers) -> tuple[str, str]:
    """Return the stream and the subject of the job, from the subject that its letter has in DEAD_LETTERS.

    Not from the headers: anyone who may park letters of one stream could have an operator's redrive publish to any
    other with them. A header is believed only where the subject was too long and is cut, and begins with it.
    """
    _, stream, subject = [*place.split(".", 2), "", ""][:3]
    in_full = headers.get(Header.SUBJECT, "")
    return stream, in_full if subject_of(stream, in_full) == place else subject


def _number(headers: Headers, name: str) -> int:
    try:
        return parse_number(headers.get(name, "0"), name)
    except Malformed:
        return 0


def _moment(text: str) -> datetime | None:
    try:
        return parse_moment(text, Header.ENQUEUED_AT)
    except Malformed:
        return None


def write_history(failures: Sequence[Failure]) -> str:
    """Return the newest of `failures`: 20 at most, in 8 KiB at most."""
    texts = [_write_failure(entry) for entry in failures[-_MAX_FAILURES:]]
    while sum(len(text) + 1 for text in texts) + 1 > _MAX_BYTES:
        del texts[0]

    return f"[{','.join(texts)}]"


def read_history(text: str | None) -> tuple[Failure, ...]:
    """Read what `write_history` wrote; nothing of what is not like that: any producer can send such a header."""
    if text is None:
        return ()

    try:
        entries = parse_json(text, _HISTORY, max_bytes=_MAX_BYTES)
        return tuple(_read_failure(fields) for fields in entries) if isinstance(entries, list) else ()
    except Malformed:
        return ()


def _write_failure(entry: Failure) -> str:
    fields = {
        "at": utc_text(entry.parked_at),
        "reason": entry.reason,
        "attempts": entry.attempts,
        "type": entry.error_type,
        "error": one_line(entry.error, _MAX_TEXT),
    }
    # ASCII only: a character is a byte.
    return json.dumps(fields, separators=(",", ":"))


def _read_failure(fields: Any) -> Failure:
    return Failure(
        parked_at=parse_moment(field_of(fields, "at", str, _HISTORY), _HISTORY),
        reason=_history_text(fields, "reason"),
        attempts=field_of(fields, "attempts", int, _HISTORY),
        error_type=_history_text(fields, "type"),
        error=_history_text(fields, "error"),
    )


def _history_text(fields: Any, name: str) -> str:
    # JSON can spell characters that UTF-8 does not have, and that could not be shown or sent again.
    return one_line(field_of(fields, name, str, _HISTORY), _MAX_TEXT)
