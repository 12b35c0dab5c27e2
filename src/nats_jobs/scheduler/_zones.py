"""Time zones: wall time to moment and back, and when a zone changes its offset."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from ..errors import ScheduleError

__all__ = ("find_zone", "first_change", "moment_at", "offset_at", "wall_time")

# No zone changes twice within this time.
_PROBE_INTERVAL = timedelta(hours=12)
# Another zone on each machine, so no name that a record could have.
_LOCAL_NAMES = frozenset({"localtime", "posixrules", "Factory"})


def find_zone(tz: str | ZoneInfo) -> ZoneInfo:
    """Return the zone of an IANA name, such as "Europe/Berlin".

    Raises:
        ScheduleError: there is none of that name, or the zone was made without one.
    """
    name = tz.key if isinstance(tz, ZoneInfo) else tz
    if not isinstance(name, str):
        raise ScheduleError("tz", f"must be the name of a time zone, or a ZoneInfo that has one, not {tz!r}")

    try:
        if name not in _LOCAL_NAMES:
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        pass  # What zoneinfo raises depends on what is wrong with the name.

    raise ScheduleError("tz", f"{name!r} is not the name of a time zone, such as 'UTC' or 'Europe/Berlin'")


def wall_time(zone: ZoneInfo, moment: datetime) -> datetime:
    """Return what clocks in the zone show at a moment, as a naive datetime."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def moment_at(zone: ZoneInfo, wall: datetime) -> datetime:
    """Return the moment at which clocks in the zone show a wall time.

    The first of two, when they show it twice; the first moment after the gap, when they never show it.
    """
    moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall_time(zone, moment) == wall:
        return moment

    # The offset from before the gap was applied. With the one from after it the moment is before the gap.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return first_change(zone, before, moment) or moment


def first_change(zone: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """Return the first moment in (`after`, `until`] that begins with another offset; None when there is none."""
    for year in range(after.year, until.year + 1):
        for change in _changes(zone, year):
            if after < change <= until:
                return change

    return None


@lru_cache(maxsize=1024)
def _changes(zone: ZoneInfo, year: int) -> tuple[datetime, ...]:
    """Return the moments of a year in UTC that begin with another offset. `zoneinfo` does not list them."""
    return tuple(_find_changes(zone, datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)))


def _find_changes(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        probe = min(start + _PROBE_INTERVAL, end)
        if offset_at(zone, probe) != offset_at(zone, start):
            yield _bisect(zone, start, probe)

        start = probe


def _bisect(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return where the offset changes; changes are at whole seconds."""
    old = offset_at(zone, before)
    while (span := (after - before) // timedelta(seconds=1)) > 1:
        middle = before + timedelta(seconds=span // 2)
        if offset_at(zone, middle) == old:
            before = middle
        else:
            after = middle

    return after


def offset_at(zone: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
