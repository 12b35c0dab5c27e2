"""What becomes of the ticks that are due, by the policies of the schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nats_jobs.scheduler import parse_rule
from nats_jobs.scheduler._decide import Decision, decide
from nats_jobs.scheduler._record import Record
from support.schedules import NOON, at, record_of

LONG_AGO = NOON - timedelta(days=400)


def decided(record: Record, now: float, watched_since: datetime = LONG_AGO) -> Decision:
    return decide(record, parse_rule(record.terms.rule, record.terms.tz), at(now), watched_since)


def all_of(record: Record, now: float, watched_since: datetime = LONG_AGO) -> tuple[list[float], list[Any]]:
    """Carry out every decision at `now`; return the ticks with a job, and those without."""
    enqueued: list[float] = []
    skipped: list[Any] = []
    while (decision := decided(record, now, watched_since)).last is not None:
        skipped += [((s.tick - NOON).total_seconds(), s.reason) for s in decision.skipped]
        if decision.tick is not None:
            enqueued.append((decision.tick - NOON).total_seconds())

        late = record.late_in_a_row + 1 if decision.is_late else 0
        count = record.count + (decision.tick is not None)
        record = replace(record, last=decision.last, late_in_a_row=late, count=count)

    return enqueued, skipped


def test_before_the_first_tick_nothing_is_done() -> None:
    assert decided(record_of(), 0.5) == Decision(at(1))


def test_a_new_schedule_begins_with_the_first_tick_after_its_declaration() -> None:
    assert decided(record_of(since=at(0)), 1.01).tick == at(1)


@pytest.mark.parametrize(
    ("catch_up", "enqueued", "reason"),
    [("none", [], "none"), ("last", [10.0], "last"), ("all", [float(n) for n in range(1, 11)], "")],
)
def test_missed_ticks_are_enqueued_as_the_policy_says_and_the_others_are_told(
    catch_up: str, enqueued: list[float], reason: str
) -> None:
    done, skipped = all_of(record_of(catch_up=catch_up), 10.5, watched_since=at(10.4))
    assert done == enqueued
    assert skipped == [(float(n), reason) for n in range(1, 11) if n not in enqueued]


def test_a_tick_that_is_waited_for_is_not_missed_by_being_a_little_late() -> None:
    assert all_of(record_of(catch_up="none"), 1.9) == ([1.0], [])
    assert all_of(record_of(catch_up="none", rule="@every 10s"), 11.1) == ([], [(10.0, "none")])


def test_ticks_older_than_the_window_are_skipped_whatever_the_policy() -> None:
    for catch_up, enqueued in (("all", [8.0, 9.0, 10.0]), ("last", [10.0])):
        done, skipped = all_of(record_of(catch_up=catch_up, window=2.5), 10.1)
        assert done == enqueued
        assert [s for s in skipped if s[1] == "window"] == [(float(n), "window") for n in range(1, 8)]

    assert all_of(record_of(rule="@every 10s", window=2.0), 13.0) == ([], [(10.0, "window")])


def test_of_all_that_were_missed_no_more_than_the_limit_are_enqueued_oldest_first() -> None:
    done, skipped = all_of(record_of(catch_up="all", max_catch_up=3), 10.5, watched_since=at(10.4))
    assert done == [1.0, 2.0, 3.0]
    assert skipped == [(float(n), "limit") for n in range(4, 11)]


def test_after_catching_up_ticks_on_time_are_enqueued_again() -> None:
    record = replace(record_of(catch_up="all", max_catch_up=1), late_in_a_row=1, last=at(9))
    assert all_of(record, 10.2, watched_since=at(5)) == ([10.0], [])


@pytest.mark.parametrize("catch_up", ["none", "last"])
def test_after_a_year_of_outage_the_stretch_that_was_missed_is_told_as_one(catch_up: str) -> None:
    record = record_of(since=LONG_AGO, catch_up=catch_up, window=1e9)
    decision = decided(record, 0.5, watched_since=at(0.4))
    assert len(decision.skipped) == 101
    until = decision.skipped[-1].until
    assert until is not None
    assert at(-1) <= until < at(1)
    assert decision.tick == (at(0) if catch_up == "last" else None)


def test_start_end_and_limit_bound_the_ticks() -> None:
    record = record_of(catch_up="all", start=at(3), end=at(6))
    assert decided(record, 0.5).next == at(3)
    assert all_of(record, 10.0)[0] == [3.0, 4.0, 5.0, 6.0]
    assert all_of(record_of(catch_up="all", limit=2), 10.0)[0] == [1.0, 2.0]
    assert decided(replace(record, last=at(6)), 7.0) == Decision(None)


def test_a_paused_schedule_has_no_tick() -> None:
    assert decided(replace(record_of(), paused=True), 5.0) == Decision(None)


RULES = ["@every 1s", "@every 7s offset 3s", "* * * * *", "*/10 * 12 * * *", "*/20 59 11 * * *", "0 0 * * 0"]


@given(
    rule=st.sampled_from(RULES),
    outage=st.floats(0.0, 200_000.0),
    catch_up=st.sampled_from(["none", "last", "all"]),
    window=st.sampled_from([5.0, 3600.0, 86_400.0]),
    watched=st.floats(0.0, 1.0),
)
def test_each_tick_is_dealt_with_once_whatever_the_rule_and_the_outage(
    rule: str, outage: float, catch_up: str, window: float, watched: float
) -> None:
    record = record_of(rule=rule, catch_up=catch_up, window=window, max_catch_up=50)
    now, parsed = at(outage), parse_rule(rule)
    seen: list[datetime] = []
    after: datetime | None = NOON
    while (decision := decide(record, parsed, now, at(outage * watched))).last is not None:
        for skipped in decision.skipped:
            assert skipped.tick == parsed.next(after or NOON)
            after = skipped.until or skipped.tick
            seen.append(skipped.tick)

        if decision.tick is not None:
            assert decision.tick == parsed.next(after or NOON)
            after = decision.tick
            seen.append(decision.tick)

        late = record.late_in_a_row + 1 if decision.is_late else 0
        record = replace(record, last=decision.last, late_in_a_row=late)

    following = parsed.next(record.after)
    assert following is None or following > now
    assert seen == sorted(set(seen))
