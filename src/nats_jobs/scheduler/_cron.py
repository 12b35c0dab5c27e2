"""Cron rules: cronsim reads them and steps through wall time; what daylight saving does to them is decided here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ..errors import ScheduleError
from ._moments import in_utc
from ._zones import first_change, moment_at, offset_at, wall_time

__all__ = ("Cron", "CronRule")

_NAMED = {
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
    "@MONTHLY": "0 0 1 * *",
    "@WEEKLY": "0 0 * * 0",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@HOURLY": "0 * * * *",
}
_RANGES = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "a day that the months have, L or LW",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT, 1#2 for the second Monday, 5L for the last Friday",
}
# cronsim takes 16-16/3 for 16/3, which goes on to the end of the day. It is 16 alone, as in every cron.
_RANGE_OF_ONE = re.compile(r"\b(\w+)-\1/0*[1-9]\d*", re.ASCII)
_MAX_TEXT = 512
_MAX_YEARS_WITHOUT_TICK = 10
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Cron:
    """A cron rule: "minute hour day-of-month month day-of-week", with seconds in front when there are six fields.

    Each field is `*`, a number, a name (JAN, MON), a range, a list, or any of these with a step (`*/15`). The day
    of month also takes `L` and `LW` (the last day, the last weekday), the day of week `1#2` (the second Monday)
    and `5L` (the last Friday); 0 and 7 are Sunday. When both are given, either suffices, but both must match when
    one begins with `*`. "@yearly", "@monthly", "@weekly", "@daily" and "@hourly" are names of rules.

    `text` is kept in one spelling: capitals, one space, no seconds field that is 0.

    Raises:
        ScheduleError: the text is no such rule, or a rule without a tick for ten years.
    """

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _one_spelling(self.text))
        _check(self.text)

    def explain(self) -> str:
        """Return the rule as an English sentence."""
        return CronSim(self.text, datetime(2001, 1, 1)).explain()


@dataclass(frozen=True)
class CronRule:
    """A cron rule in a time zone.

    A fixed time (neither the minute nor the hour begins with `*`) is a promise of one run: when clocks skip it, it
    comes at the first moment after the gap, and when they show it twice, at the first. A rule with such a wildcard
    runs through: what clocks skip has no tick, what they show twice has two.
    """

    cron: Cron
    zone: ZoneInfo

    @property
    def text(self) -> str:
        return self.cron.text

    def next(self, after: datetime) -> datetime | None:
        after = in_utc(after, "after")
        try:
            return self._next_fixed(after) if _is_fixed(self.text) else self._next_running_through(after)
        except OverflowError:
            # The calendar ends in the year 9999.
            return None

    def explain(self) -> str:
        return f"{self.cron.explain()}, {self.zone.key} time"

    def _next_fixed(self, after: datetime) -> datetime | None:
        for wall in CronSim(self.text, wall_time(self.zone, after)):
            # In the second round of a time that is shown twice, and for several times in one gap, it has been.
            if (tick := moment_at(self.zone, wall)) > after:
                return tick

        return None

    def _next_running_through(self, after: datetime) -> datetime | None:
        since, offset = after, offset_at(self.zone, after)
        wall = self._next_wall(after + offset)
        while wall is not None:
            tick = (wall - offset).replace(tzinfo=UTC)
            change = first_change(self.zone, since, tick)
            if change is None:
                return tick

            # From this moment on, itself included, clocks show something else.
            since, offset = change, offset_at(self.zone, change)
            wall = self._next_wall(change + offset - _SECOND)

        return None

    def _next_wall(self, after: datetime) -> datetime | None:
        return next(CronSim(self.text, after.replace(tzinfo=None)), None)


def _is_fixed(text: str) -> bool:
    minute, hour = text.split()[-5:-3]
    return not minute.startswith("*") and not hour.startswith("*")


def _one_spelling(text: str) -> str:
    if not isinstance(text, str):
        raise ScheduleError("rule", f"must be text, not {text!r}")

    if len(text) > _MAX_TEXT:
        raise ScheduleError("rule", f"has {len(text)} characters, more than {_MAX_TEXT}")

    fields = text.upper().split()
    if len(fields) == 1 and fields[0].startswith("@"):
        if fields[0] not in _NAMED:
            names = ", ".join(name.lower() for name in _NAMED)
            raise ScheduleError("rule", f"{text!r} is none of {names}, nor an interval such as '@every 30s'")

        return _NAMED[fields[0]]

    fields = [_RANGE_OF_ONE.sub(r"\1", field) for field in fields]
    return " ".join(fields[1:] if len(fields) == 6 and fields[0] == "0" else fields)


@lru_cache(maxsize=4096)
def _check(text: str) -> None:
    count = len(text.split())
    if count not in (5, 6):
        raise ScheduleError(
            "rule", f"{text!r} has {count} fields: five are needed, or six with the seconds first"
        )

    try:
        CronSim(text, datetime(2001, 1, 1))
    except (CronSimError, ValueError) as error:
        field = str(error).removeprefix("Bad ")
        raise ScheduleError("rule", f"{text!r}: bad {field} ({_RANGES.get(field, 'too long')})") from None

    if _may_be_rare(text) and _has_long_gap(text):
        raise ScheduleError(
            "rule", f"{text!r} has no tick for {_MAX_YEARS_WITHOUT_TICK} years, or never has one"
        )


def _may_be_rare(text: str) -> bool:
    """Rules of only a date, or only a day of the week, come within eight years, but for a fifth day of the week."""
    day, _, weekday = text.split()[-3:]
    return "*" not in (day, weekday) or "#5" in weekday


def _has_long_gap(text: str) -> bool:
    """Weekdays and dates meet again in 28 years: whether a rule is refused does not depend on today's date."""
    for year in range(2001, 2029):
        tick = next(CronSim(text, datetime(year - 1, 12, 31, 23, 59, 59)), None)
        if tick is None or tick >= datetime(year + _MAX_YEARS_WITHOUT_TICK, 1, 1):
            return True

    return False
