"""When cron rules have their ticks, found by looking at every minute. It shares no code with the library.

A rule is made here together with the sets that its fields stand for, so nothing is parsed.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

__all__ = ("MadeUpRule", "make_rule", "ticks_by_brute_force")

MINUTE = timedelta(minutes=1)
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]


@dataclass(frozen=True)
class MadeUpRule:
    text: str
    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    is_day: Callable[[date], bool]
    runs_through: bool


def make_rule(draw: random.Random) -> MadeUpRule:
    """Make a rule of five or six fields. Those with many seconds have few minutes, to keep the number of ticks low."""
    second, seconds = _field(draw, 0, 59, steps=(20, 30)) if draw.random() < 0.5 else ("", {0})
    minute, minutes = _field(draw, 0, 59, steps=(5, 7, 15, 30))
    hour, hours = _field(draw, 0, 23, steps=(2, 3, 5))
    day, is_day_of_month = _day_of_month(draw)
    weekday, is_weekday = _day_of_week(draw)
    month, months = (
        _field(draw, 1, 12, steps=(2, 3), names=MONTHS) if draw.random() < 0.15 else ("*", set(range(1, 13)))
    )
    both = day.startswith("*") or weekday.startswith("*")

    def is_day(day: date) -> bool:
        answers = (is_day_of_month(day), is_weekday(day))
        return day.month in months and (all(answers) if both else any(answers))

    return MadeUpRule(
        " ".join(field for field in (second, minute, hour, day, month, weekday) if field),
        frozenset(seconds),
        frozenset(minutes),
        frozenset(hours),
        is_day,
        minute.startswith("*") or hour.startswith("*"),
    )


def _field(
    draw: random.Random, low: int, high: int, steps: tuple[int, ...], names: list[str] | None = None
) -> tuple[str, set[int]]:
    def name(value: int) -> str:
        return names[value - low] if names and draw.random() < 0.5 else str(value)

    kind = draw.randrange(6)
    if kind == 0:
        return "*", set(range(low, high + 1))

    if kind == 1:
        step = draw.choice(steps)
        return f"*/{step}", {value for value in range(low, high + 1) if (value - low) % step == 0}

    if kind == 2:
        first, last = sorted((draw.randint(low, high), draw.randint(low, high)))
        step = draw.choice(steps)
        return f"{name(first)}-{name(last)}/{step}", set(range(first, last + 1, step))

    if kind == 3:
        several = sorted(draw.sample(range(low, high + 1), 3))
        return ",".join(map(name, several)), set(several)

    # The hours in which clocks are changed are what is interesting.
    value = draw.randint(low, min(high, 4)) if draw.random() < 0.5 else draw.randint(low, high)
    return name(value), {value}


def _day_of_month(draw: random.Random) -> tuple[str, Callable[[date], bool]]:
    kind = draw.randrange(8)
    if kind == 0:
        return "L", lambda day: day.day == _days_in(day)

    if kind == 1:
        return (
            "LW",
            lambda day: (
                day
                == max(
                    other
                    for number in range(_days_in(day) - 6, _days_in(day) + 1)
                    if (other := day.replace(day=number)).isoweekday() <= 5
                )
            ),
        )

    if kind <= 3:
        text, days = _field(draw, 1, 28, steps=(2, 3))
        if "*/" in text:  # From the first to the last of the month, and not to the 28th.
            step = int(text[2:])
            days = {number for number in range(1, 32) if (number - 1) % step == 0}

        return (text, lambda day: day.day in days) if text != "*" else ("*", lambda day: True)

    return "*", lambda day: True


def _day_of_week(draw: random.Random) -> tuple[str, Callable[[date], bool]]:
    kind = draw.randrange(8)
    weekday = draw.randrange(7)
    if kind == 0:
        nth = draw.randint(1, 4)
        return (
            f"{WEEKDAYS[weekday]}#{nth}",
            lambda day: _weekday(day) == weekday and (day.day - 1) // 7 == nth - 1,
        )

    if kind == 1:
        return f"{weekday}L", lambda day: _weekday(day) == weekday and day.day + 7 > _days_in(day)

    if kind == 2:
        text = "7" if weekday == 0 else draw.choice((str(weekday), WEEKDAYS[weekday].lower()))
        return text, lambda day: _weekday(day) == weekday

    if kind == 3:
        return "MON-FRI", lambda day: 1 <= _weekday(day) <= 5

    return "*", lambda day: True


def _weekday(day: date) -> int:
    return day.isoweekday() % 7


def _days_in(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def ticks_by_brute_force(rule: MadeUpRule, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Return all ticks with `start` <= tick < `end`, in UTC. Both are whole minutes."""
    if rule.runs_through:
        found = set(_running_through(rule, zone, start, end))
    else:
        found = set(_fixed(rule, zone, start, end))

    return sorted(found)


def _running_through(rule: MadeUpRule, zone: str, start: datetime, end: datetime) -> Iterator[datetime]:
    """Each moment of which the clocks show what the rule says is a tick."""
    for moment, wall in _minutes(zone, start, end):
        if wall.minute in rule.minutes and wall.hour in rule.hours and rule.is_day(wall.date()):
            yield from (moment + timedelta(seconds=second) for second in rule.seconds)


def _fixed(rule: MadeUpRule, zone: str, start: datetime, end: datetime) -> Iterator[datetime]:
    """Each time that the rule says is one tick: the first moment at which clocks show it, or have gone past it."""
    margin = timedelta(days=1)
    minutes = _minutes(zone, start - margin, end + margin)
    first_shown: dict[datetime, datetime] = {}
    for moment, wall in minutes:
        first_shown.setdefault(wall, moment)

    wall, last = minutes[0][1], minutes[-1][1]
    while wall < last:
        if wall.minute in rule.minutes and wall.hour in rule.hours and rule.is_day(wall.date()):
            if wall in first_shown:
                shown = [first_shown[wall] + timedelta(seconds=second) for second in rule.seconds]
            else:
                past = next(moment for moment, other in minutes if other > wall)
                shown = [past]

            yield from (tick for tick in shown if start <= tick < end)

        wall += MINUTE


@lru_cache(maxsize=16)
def _minutes(zone: str, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Each minute, and what clocks show then."""
    place = ZoneInfo(zone)
    count = (end - start) // MINUTE
    moments = (start + number * MINUTE for number in range(count))
    return [(moment, moment.astimezone(place).replace(tzinfo=None, fold=0)) for moment in moments]
