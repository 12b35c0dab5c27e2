"""Seconds and nanoseconds, wall time and text. The only place where 10⁹ stands."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ("from_ns", "to_ns", "utc_from_ns", "utc_text")

_NS = 1_000_000_000


def to_ns(seconds: float) -> int:
    return round(seconds * _NS)


def from_ns(ns: int) -> float:
    return ns / _NS


def utc_from_ns(ns: int) -> datetime:
    """Return the moment, `ns` nanoseconds after 1970, as an aware datetime (which keeps microseconds)."""
    seconds, rest = divmod(ns, _NS)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def utc_text(moment: datetime) -> str:
    """Write an aware datetime as RFC 3339 in UTC, as the server does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
