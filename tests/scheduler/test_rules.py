"""What is a rule, what is not, and when its ticks are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from nats_jobs.scheduler import Cron, Every, ScheduleError, parse_rule


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def local_ticks(rule: str, zone: str, day: str, count: int) -> list[str]:
    """The first ticks after midnight of a day, as clocks in the zone show them."""
    place = ZoneInfo(zone)
    parsed = parse_rule(rule, zone)
    moment = datetime.fromisoformat(day).replace(tzinfo=place).astimezone(UTC) - timedelta(seconds=1)
    found = []
    for _ in range(count):
        tick = parsed.next(moment)
        assert tick is not None
        moment = tick
        found.append(tick.astimezone(place).strftime("%d %H:%M%z"))

    return found


# Clocks are changed...


@pytest.mark.parametrize("seconds", ["", "0 "])
@pytest.mark.parametrize(
    ("rule", "zone", "day", "expected"),
    [
        # A fixed time in the gap comes right after it.
        ("30 2 * * *", "Europe/Berlin", "2027-03-28", ["28 03:00+0200", "29 02:30+0200"]),
        ("30 2 * * *", "America/New_York", "2027-03-14", ["14 03:00-0400", "15 02:30-0400"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2027-10-03", ["03 02:30+1100", "04 02:15+1100"]),
        ("0 0 * * *", "America/Santiago", "2027-09-05", ["05 01:00-0300", "06 00:00-0300"]),
        ("0 0 * * *", "Africa/Cairo", "2027-04-30", ["30 01:00+0300", "01 00:00+0300"]),
        # Two times in one gap are one tick.
        ("15,45 2 * * *", "Europe/Berlin", "2027-03-28", ["28 03:00+0200", "29 02:15+0200"]),
        ("30 2,3 * * *", "Europe/Berlin", "2027-03-28", ["28 03:00+0200", "28 03:30+0200", "29 02:30+0200"]),
        # A fixed time that is shown twice comes once, the first time.
        ("30 2 * * *", "Europe/Berlin", "2027-10-31", ["31 02:30+0200", "01 02:30+0100"]),
        ("30 1 * * *", "America/New_York", "2027-11-07", ["07 01:30-0400", "08 01:30-0500"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2027-04-04", ["04 01:45+1100", "05 01:45+1030"]),
        ("30 23 * * *", "America/Santiago", "2027-04-03", ["03 23:30-0300", "04 23:30-0400"]),
        # Wildcards run through: nothing in the gap, both rounds of the overlap.
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2027-03-28T01:30",
            ["28 01:30+0100", "28 03:00+0200", "28 03:30+0200"],
        ),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2027-10-31T02:00",
            ["31 02:00+0200", "31 02:30+0200", "31 02:00+0100", "31 02:30+0100", "31 03:00+0100"],
        ),
        (
            "30 * * * *",
            "Australia/Lord_Howe",
            "2027-04-04T01:00",
            ["04 01:30+1100", "04 01:30+1030", "04 02:30+1030"],
        ),
        (
            "*/15 2,3 * * *",
            "Australia/Lord_Howe",
            "2027-10-03",
            ["03 02:30+1100", "03 02:45+1100", "03 03:00+1100"],
        ),
        ("0 */3 * * 0", "America/Santiago", "2027-09-05", ["05 03:00-0300", "05 06:00-0300"]),
        (
            "0 * * * *",
            "Africa/Cairo",
            "2027-10-28T22:00",
            ["28 22:00+0300", "28 23:00+0300", "28 23:00+0200"],
        ),
    ],
)
def test_ticks_where_clocks_are_changed(
    seconds: str, rule: str, zone: str, day: str, expected: list[str]
) -> None:
    """With five fields and with six alike."""
    assert local_ticks(seconds + rule, zone, day, len(expected)) == expected


def test_a_day_that_a_zone_leaves_out_has_its_tick_when_the_next_begins() -> None:
    """Samoa had no 30 December 2011."""
    assert local_ticks("0 9 * * *", "Pacific/Apia", "2011-12-29T08:00", 3) == [
        "29 09:00-1000",
        "31 00:00+1400",
        "31 09:00+1400",
    ]


def test_a_rare_rule_is_found_behind_many_changes() -> None:
    assert parse_rule("* 12 29 2 *", "Europe/Berlin").next(utc("2097-01-01T00:00Z")) == utc(
        "2104-02-29T11:00Z"
    )


# What is a rule...


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("0 0 0 1 1 * 2027", "has 7 fields"),
        ("60 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("0 0 0 * *", "bad day-of-month"),
        ("0 0 * 13 *", "bad month"),
        ("0 0 * * 8", "bad day-of-week"),
        ("0 0 * * FRI-MON", "bad day-of-week"),
        ("-1 * * * *", "bad minute"),
        ("*/0 * * * *", "bad minute"),
        ("5-5/0 * * * *", "bad minute"),
        ("1,,2 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 31 4,6 *", "bad day-of-month"),
        ("0 0 31 2 1#5", "no tick for 10 years"),
        ("0 0 * 2 1#5", "no tick for 10 years"),
        ("0 0 */31 * 1#5", "no tick for 10 years"),
        ("@reboot", "'@reboot' is none of @yearly"),
        ("every day", "has 2 fields"),
        ("1," * 300, "more than 512"),
        ("9" * 500 + " * * * *", "bad minute"),
        ("@every", "is not an interval"),
        ("@every 0s", "from 0.01 to ten years"),
        ("@every -5s", "is not an interval"),
        ("@every 5 minutes", "is not an interval"),
        ("@every 1e9s", "is not an interval"),
        ("function shop:next_fair", "only be followed by a process that declares it"),
        (None, "has no name of its own"),
        (30, "has no name of its own"),
        (b"* * * * *", "has no name of its own"),
        (lambda previous: previous, "has no name of its own"),
        (partial(max, 1), "has no name of its own"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_reason(rule: Any, reason: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse_rule(rule)

    assert caught.value.field == "rule"
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    "tz", ["", "Mars/Phobos", "Europe", "../../etc/passwd", "a\0b", "CEST+1", "localtime", None, UTC]
)
def test_a_zone_that_does_not_exist_everywhere_is_refused(tz: Any) -> None:
    with pytest.raises(ScheduleError, match="time zone") as caught:
        parse_rule("@hourly", tz)

    assert caught.value.field == "tz"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("@hourly", "0 * * * *"),
        ("@Daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("  0  */5 * * *   mon ", "*/5 * * * MON"),
        ("30 */5 * * * *", "30 */5 * * * *"),
        ("* 16-16/3,5 * * FRI-FRI/2", "* 16,5 * * FRI"),
        (Cron("0 9 * jan *"), "0 9 * JAN *"),
        (Every(30), "@every 30s"),
        (Every(90, offset=100), "@every 90s offset 10s"),
        (Every(3600, offset=-60), "@every 3600s offset 3540s"),
        (Every(0.25), "@every 0.25s"),
        ("@every 30", "@every 30s"),
        ("@EVERY 1.5h offset 5m", "@every 5400s offset 300s"),
        ("@every 250ms", "@every 0.25s"),
        ("@every 7d", "@every 604800s"),
    ],
)
def test_what_is_stored_of_a_rule_is_its_text(rule: Any, text: str) -> None:
    parsed = parse_rule(rule, "Europe/Berlin")
    assert parsed.text == text
    assert parse_rule(text, "Europe/Berlin") == parsed


def test_a_rule_explains_itself() -> None:
    assert (
        parse_rule("0 9 * * 1-5", "Europe/Berlin").explain()
        == "At 09:00 on Monday through Friday, Europe/Berlin time"
    )
    assert (
        parse_rule(Every(90, offset=5))
        .explain()
        .startswith("Every 90 seconds since 1970 in UTC, 5 seconds after")
    )


@pytest.mark.parametrize("rule", ["* * * * *", "@daily", "@every 1s"])
def test_a_moment_without_a_zone_is_refused(rule: str) -> None:
    with pytest.raises(ScheduleError, match="no time zone"):
        parse_rule(rule).next(datetime(2027, 1, 1))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("rule", ["@yearly", "* 0 1 1 *", "@every 3650d"])
def test_the_calendar_ends(rule: str, zone: str) -> None:
    assert parse_rule(rule, zone).next(datetime.max.replace(tzinfo=UTC) - timedelta(days=1)) is None


# Intervals...


@given(
    seconds=st.integers(1, 10**7).map(lambda count: count / 100),
    offset=st.integers(-(10**8), 10**8).map(lambda count: count / 100),
    after=st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
def test_an_interval_counts_from_the_epoch(seconds: float, offset: float, after: datetime) -> None:
    every = Every(seconds, offset)
    tick = every.next(after)
    assert tick is not None
    assert timedelta(0) < tick - after <= timedelta(seconds=seconds)
    elapsed = tick - datetime(1970, 1, 1, tzinfo=UTC) - timedelta(seconds=offset)
    assert elapsed % timedelta(seconds=seconds) == timedelta(0)
    assert parse_rule(every.text) == every
    assert every.next(tick) == tick + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "arguments",
    [
        (0,),
        (-1,),
        (0.001,),
        (4e8,),
        (float("nan"),),
        (float("inf"),),
        ("5",),
        (True,),
        (5, float("nan")),
        (5, None),
    ],
)
def test_an_interval_that_could_not_work_is_refused(arguments: Any) -> None:
    with pytest.raises(ScheduleError, match="Every"):
        Every(*arguments)


# Functions...


def each_leap_year(previous: datetime) -> datetime | None:
    year = previous.year + 4 - previous.year % 4
    return datetime(year, 2, 29, tzinfo=previous.tzinfo) if year <= 2032 else None


def naive(previous: datetime) -> datetime:
    return datetime(2030, 1, 1)


def backwards(previous: datetime) -> datetime:
    return previous


def broken(previous: datetime) -> datetime:
    raise KeyError("fair")


def text(previous: datetime) -> Any:
    return "2030-01-01T00:00Z"


async def waiting(previous: datetime) -> datetime:
    return previous


def test_a_function_is_a_rule_in_the_zone_of_its_schedule() -> None:
    rule = parse_rule(each_leap_year, "Europe/Berlin")
    assert rule.text == f"function {__name__}:each_leap_year"
    assert rule.next(utc("2027-01-01T00:00Z")) == utc("2028-02-28T23:00Z")
    assert rule.next(utc("2032-02-28T23:00Z")) is None


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (naive, "an aware datetime or None is needed"),
        (text, "an aware datetime or None is needed"),
        (backwards, "is not later than"),
        (broken, "raised KeyError: 'fair'"),
    ],
)
def test_a_function_that_cannot_be_followed_is_named(
    function: Callable[[datetime], Any], reason: str
) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse_rule(function).next(utc("2027-01-01T00:00Z"))

    assert caught.value.field == "rule"
    assert reason in caught.value.reason
    assert f"{__name__}:{function.__qualname__}" in caught.value.reason


def test_an_async_function_is_refused() -> None:
    with pytest.raises(ScheduleError, match="is async"):
        parse_rule(waiting)  # type: ignore[arg-type]


def test_who_has_no_schedules_does_not_import_what_they_need() -> None:
    program = (
        "import sys, nats_jobs; print([name for name in ('cronsim', 'zoneinfo') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
