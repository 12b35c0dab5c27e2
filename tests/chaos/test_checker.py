"""The checker must find what is wrong: a ledger for each of its rules."""

from __future__ import annotations

from typing import Any

import pytest

from .checker import Outage, Period, Verdict, judge

ACK_WAIT = 2.0
KILLED = Outage(began=4.0, ended=5.0)
PARTED = Outage(began=4.0, ended=9.0, parted=True)


def attempt(
    pid: int, fence: tuple[int, int], started: float, ended: float | None, how: str = "end", waited: float = 0
) -> list[dict[str, Any]]:
    """Return what one attempt writes; `ended` is None for a process that was killed in it."""
    same = {"n": 1, "pid": pid, "fence": list(fence)}
    start = {"what": "start", "at": started, "waited": waited, **same}
    if ended is None:
        return [start]

    cut = {"what": "cut", "reason": how} if how.isupper() else {"what": how}
    return [start, {"at": ended, **cut, **same}]


def verdict_on(
    *attempts: list[dict[str, Any]],
    outages: tuple[Outage, ...] = (),
    held_up: tuple[Period, ...] = (),
    letters: dict[int, str | None] | None = None,
) -> Verdict:
    entries = sorted((entry for entries in attempts for entry in entries), key=lambda entry: entry["at"])
    return judge(entries, {1}, letters or {}, {2: "rejected"}, list(outages), list(held_up), ACK_WAIT)


def test_a_job_that_was_completed_is_not_lost_however_often_it_was_begun() -> None:
    verdict = verdict_on(attempt(7, (1, 1), 1, None), attempt(8, (1, 2), 3, 4))
    assert verdict.holds
    assert (verdict.attempts, verdict.twice) == (2, 0)


@pytest.mark.parametrize("how", ["failed", "LEASE_LOST", "STOP"])
def test_a_confirmed_job_that_was_never_completed_is_lost(how: str) -> None:
    verdict = verdict_on(attempt(7, (1, 1), 1, 2, how))
    assert verdict.lost == {1}
    assert not verdict.holds


def test_a_confirmed_job_that_nobody_ever_saw_is_lost() -> None:
    assert verdict_on().lost == {1}


def test_a_dead_letter_counts_only_with_the_reason_that_was_asked_for() -> None:
    done = attempt(7, (1, 1), 1, 2)
    assert verdict_on(done, letters={2: "rejected"}).holds
    assert verdict_on(done, letters={2: "crash-loop"}).misjudged == {2: "crash-loop"}
    assert verdict_on(done, letters={2: None}).misjudged == {2: None}
    assert verdict_on(letters={1: "rejected"}).misjudged == {1: "rejected"}


def test_two_completions_may_follow_each_other_and_may_not_overlap() -> None:
    first = attempt(7, (1, 1), 1, 3)
    assert verdict_on(first, attempt(8, (1, 2), 3.1, 4)).holds
    verdict = verdict_on(first, attempt(8, (1, 2), 2.9, 4))
    assert not verdict.holds
    assert verdict.longest_overlap == pytest.approx(0.1)


def test_a_long_completion_overlaps_also_with_the_last_of_several() -> None:
    first = attempt(7, (1, 1), 1, 9)
    verdict = verdict_on(first, attempt(8, (1, 2), 2, 3), attempt(8, (1, 3), 5, 6))
    assert len(verdict.overlapping) == 2


def test_who_lost_the_lease_has_not_completed() -> None:
    assert verdict_on(attempt(7, (1, 1), 1, 5, "LEASE_LOST"), attempt(8, (1, 2), 3, 4)).holds


@pytest.mark.parametrize(
    ("later", "outage", "excused"),
    [
        pytest.param(attempt(8, (1, 2), 6, 8), KILLED, True, id="an extension was forgotten"),
        pytest.param(attempt(8, (1, 2), 5, 8), KILLED, False, id="and they overlap for longer than ack_wait"),
        pytest.param(attempt(8, (1, 1), 5, 8), KILLED, True, id="the delivery itself was forgotten"),
        pytest.param(attempt(8, (1, 2), 3.9, 8), KILLED, False, id="before the server went"),
        pytest.param(attempt(8, (1, 2), 5, 8), PARTED, True, id="two leaders"),
        pytest.param(attempt(8, (1, 2), 7.3, 8), Outage(0, 1), False, id="long after the server was back"),
    ],
)
def test_an_overlap_is_excused_only_for_what_a_server_forgot(
    later: list[dict[str, Any]], outage: Outage, excused: bool
) -> None:
    verdict = verdict_on(attempt(7, (1, 1), 2, 7.5), later, outages=(outage,))
    assert verdict.holds == excused
    assert verdict.excused == excused


@pytest.mark.parametrize(("waited", "excused"), [(3.0, True), (0.2, False)])
def test_who_starts_late_what_was_delivered_before_the_server_went_is_excused(
    waited: float, excused: bool
) -> None:
    """A held-up process wakes up with a lease that is good, but for a server that crashed and delivered again."""
    late = attempt(7, (1, 1), 6.1, 6.3, waited=waited)
    verdict = verdict_on(attempt(8, (1, 2), 6, 6.2), late, outages=(KILLED,))
    assert verdict.excused == excused
    assert verdict.holds == excused
    assert bool(verdict.backwards) != excused


@pytest.mark.parametrize(
    ("how", "held_up", "excused"),
    [("failed", (1.5, 4.9), True), ("LEASE_LOST", (1.5, 4.9), False), ("failed", (5.5, 6), False)],
)
def test_an_overlap_is_excused_when_an_earlier_nak_may_have_come_late(
    how: str, held_up: tuple[float, float], excused: bool
) -> None:
    verdict = verdict_on(
        attempt(7, (1, 1), 1, 2, how),
        attempt(8, (1, 2), 4, 5.1),
        attempt(9, (1, 3), 5, 6),
        held_up=(Period(*held_up),),
    )
    assert verdict.excused == excused
    assert verdict.holds == excused


def test_fences_of_completions_rise_as_long_as_the_server_remembers() -> None:
    twice = attempt(7, (1, 2), 1, 2), attempt(8, (1, 2), 6, 7)
    assert verdict_on(attempt(7, (1, 2), 1, 2), attempt(8, (1, 1), 3, 4, "LEASE_LOST")).holds
    assert len(verdict_on(*twice).backwards) == 1
    assert verdict_on(*twice, outages=(KILLED,)).holds
    assert verdict_on(attempt(7, (1, 2), 1, 2), attempt(8, (9, 1), 6, 7)).stored_twice == 1
