"""What a server says of itself: what it says later adds to what it said before, within a bound."""

from __future__ import annotations

from typing import Any

__all__ = ("limit_in", "updated")

_DEFAULT_MAX_PAYLOAD = 1024 * 1024
# A real INFO has some thirty. One that says new ones every time must not fill our memory.
_MOST_FIELDS = 128


def updated(known: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Return both together; only what was said last when that would be too much to keep."""
    both = known | said
    return both if len(both) <= _MOST_FIELDS else said


def limit_in(info: dict[str, Any]) -> int:
    """Return `max_payload`. What is not a limit is ignored: a server's mistake must not end the connection to it."""
    limit = info.get("max_payload")
    return limit if type(limit) is int and limit > 0 else _DEFAULT_MAX_PAYLOAD
