"""Random cron rules have the ticks that looking at every minute finds, above all where clocks are changed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from nats_jobs.scheduler import parse_rule
from support.cron_oracle import make_rule, ticks_by_brute_force

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Cairo"]
# The days on which clocks are changed in 2027, in UTC.
CHANGES = {
    "Europe/Berlin": [(3, 28), (10, 31)],
    "America/New_York": [(3, 14), (11, 7)],
    "Australia/Lord_Howe": [(4, 3), (10, 2)],
    "America/Santiago": [(4, 4), (9, 5)],
    "Africa/Cairo": [(4, 29), (10, 28)],
}
MANY = 20_000


def ticks_of(text: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    rule = parse_rule(text, zone)
    tick = rule.next(start - timedelta(seconds=1))
    found = []
    while tick is not None and tick < end:
        found.append(tick)
        tick = rule.next(tick)

    return found


def around_changes(zone: str) -> Iterator[tuple[datetime, datetime]]:
    for month, day in CHANGES[zone]:
        middle = datetime(2027, month, day, tzinfo=UTC)
        yield middle - timedelta(days=1), middle + timedelta(days=2)


@pytest.mark.parametrize("zone", ZONES)
def test_the_clocks_are_changed_on_these_days(zone: str) -> None:
    for start, end in around_changes(zone):
        assert start.astimezone(ZoneInfo(zone)).utcoffset() != end.astimezone(ZoneInfo(zone)).utcoffset()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), zone=st.sampled_from(ZONES))
def test_random_rules_have_the_ticks_of_the_oracle_around_changes_of_the_clock(seed: int, zone: str) -> None:
    made_up = make_rule(random.Random(seed))
    for start, end in around_changes(zone):
        # Rules with thousands of ticks in these days are left to the long form.
        expected = ticks_by_brute_force(made_up, zone, start, end)[:300]
        found = ticks_of(
            made_up.text, zone, start, expected[-1] + timedelta(seconds=1) if len(expected) == 300 else end
        )
        assert found == expected, made_up.text


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("zone", ZONES)
def test_a_year_of_ticks_of_200_random_rules_is_that_of_the_oracle(zone: str) -> None:
    draw = random.Random(2027)
    start, end = datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
    for _ in range(200):
        made_up = make_rule(draw)
        expected = ticks_by_brute_force(made_up, zone, start, end)
        if len(expected) < MANY:
            assert ticks_of(made_up.text, zone, start, end) == expected, made_up.text
        else:
            for since, until in around_changes(zone):
                part = [tick for tick in expected if since <= tick < until]
                assert ticks_of(made_up.text, zone, since, until) == part, made_up.text


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    zone=st.sampled_from(ZONES),
    minutes=st.integers(0, 525_600 * 2),
    micros=st.integers(0, 10**6 - 1),
)
def test_a_tick_does_not_depend_on_the_moment_from_which_it_is_asked(
    seed: int, zone: str, minutes: int, micros: int
) -> None:
    """Nothing is remembered: from any moment before it, the next tick is the same."""
    rule = parse_rule(make_rule(random.Random(seed)).text, zone)
    after = datetime(2027, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes, microseconds=micros)
    tick = rule.next(after)
    if tick is not None:
        assert tick > after
        assert rule.next(after + (tick - after) / 2) == tick
        assert rule.next(tick - timedelta(microseconds=1)) == tick
