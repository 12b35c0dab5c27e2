"""Dead letters as text: rows of a table, a sheet for one, JSON for programs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from ..dead_letters import DeadLetter
from ..errors import DecodeError
from ..units import utc_text

__all__ = ("Table", "as_json", "details", "printable", "report", "table_row")

_HEAD = ("NUMBER", "PARKED AT (UTC)", "STREAM", "JOB", "REASON", "ATTEMPTS", "REDRIVEN", "ERROR")
_MAX_WIDTHS = (20, 19, 32, 32, 12, 8, 8, 60)
_MAX_ROWS = 100
_MAX_PAYLOAD = 2000


class Table:
    """Prints rows in columns, a hundred at a time: memory does not grow with the list."""

    def __init__(self) -> None:
        self._rows: list[Sequence[str]] = [_HEAD]
        self._widths = [len(title) for title in _HEAD]

    def add(self, row: Sequence[str]) -> None:
        self._rows.append([_cut(cell, longest) for cell, longest in zip(row, _MAX_WIDTHS, strict=True)])
        if len(self._rows) > _MAX_ROWS:
            self.flush()

    def flush(self) -> None:
        """Print what has not been printed. A head alone is nothing to print."""
        if self._rows in ([], [_HEAD]):
            return

        self._widths = [
            max(width, *(len(row[column]) for row in self._rows)) for column, width in enumerate(self._widths)
        ]
        for row in self._rows:
            cells = (cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
            print("  ".join(cells).rstrip())

        self._rows = []


def table_row(letter: DeadLetter) -> tuple[str, ...]:
    """Return the cells of one line in the table."""
    return (
        str(letter.sequence),
        _minute(letter.parked_at),
        letter.stream,
        letter.id or f"#{letter.original_sequence}",
        letter.reason,
        str(letter.attempts),
        str(letter.redriven),
        _error(letter.error_type, letter.error),
    )


def details(letter: DeadLetter) -> str:
    """Return everything about one letter, a fact on each line."""
    facts = [
        ("number", str(letter.sequence)),
        ("stream", letter.stream),
        ("subject", letter.subject),
        ("sequence", str(letter.original_sequence)),
        ("consumer", letter.consumer),
        ("id", letter.id or ""),
        ("enqueued at", utc_text(letter.enqueued_at) if letter.enqueued_at else ""),
        ("redriven", str(letter.redriven)),
        *((f"header {name}", value) for name in letter.headers for value in letter.headers.get_all(name)),
        *_rounds(letter),
        ("payload", _cut(_payload_text(letter), _MAX_PAYLOAD)),
    ]
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name.ljust(width)}  {printable(value)}".rstrip() for name, value in facts)


def as_json(letter: DeadLetter, *, payload: bool) -> str:
    """Return a letter as one line of JSON; the payload as bytes in base64, and decoded where JSON can carry it."""
    fields: dict[str, Any] = {
        "number": letter.sequence,
        "stream": letter.stream,
        "subject": letter.subject,
        "sequence": letter.original_sequence,
        "consumer": letter.consumer,
        "id": letter.id,
        "reason": letter.reason,
        "error_type": letter.error_type,
        "error": letter.error,
        "attempts": letter.attempts,
        "enqueued_at": utc_text(letter.enqueued_at) if letter.enqueued_at else None,
        "parked_at": utc_text(letter.parked_at),
        "redriven": letter.redriven,
        "headers": {name: letter.headers.get_all(name) for name in letter.headers},
        "history": [
            {
                "parked_at": utc_text(entry.parked_at),
                "reason": entry.reason,
                "attempts": entry.attempts,
                "error_type": entry.error_type,
                "error": entry.error,
            }
            for entry in letter.history
        ],
    }
    if payload:
        fields["data"] = base64.b64encode(letter.data).decode()
        fields |= _decoded(letter)

    return json.dumps(fields)


def report(in_json: bool, text: str, **fields: Any) -> None:
    """Print what was done, as a sentence or as JSON."""
    print(json.dumps(fields) if in_json else text, flush=True)


def _rounds(letter: DeadLetter) -> Iterator[tuple[str, str]]:
    for entry in letter.history:
        error = _error(entry.error_type, entry.error)
        yield "parked", f"{utc_text(entry.parked_at)}  {entry.reason}, attempt {entry.attempts}: {error}"


def _decoded(letter: DeadLetter) -> dict[str, Any]:
    try:
        value = letter.payload()
        json.dumps(value)
    except (DecodeError, TypeError, ValueError):
        return {}

    return {"payload": value}


def _payload_text(letter: DeadLetter) -> str:
    try:
        value = letter.payload()
    except DecodeError as error:
        return f"{letter.data[:_MAX_PAYLOAD]!r} ({error})"

    return repr(value)


def _error(kind: str, text: str) -> str:
    return f"{kind}: {text}" if kind and text else kind or text


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _cut(text: str, longest: int) -> str:
    text = printable(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def printable(text: str) -> str:
    """A foreign header must not steer the terminal, or fail to be encoded."""
    return "".join(mark if mark.isprintable() else "?" for mark in text)
