"""Moments are aware datetimes; the rules compute in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from ..errors import ScheduleError

__all__ = ("in_utc",)


def in_utc(moment: datetime, field: str) -> datetime:
    """Return an aware datetime in UTC; `field` is what the error names when it is none."""
    if not isinstance(moment, datetime):
        raise ScheduleError(field, f"must be a datetime, not {type(moment).__name__}")

    if moment.utcoffset() is None:
        raise ScheduleError(field, f"{moment} has no time zone: use an aware datetime")

    return moment.astimezone(UTC)
