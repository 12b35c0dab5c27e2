"""Delays are finite seconds for every attempt, and units lose nothing on the way there and back."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nats_jobs import exp_backoff
from nats_jobs.backoff import check_backoff, delay_of, jittered
from nats_jobs.errors import UsageError
from nats_jobs.units import from_ns, to_ns, utc_from_ns, utc_text

SECONDS = st.floats(min_value=0, max_value=1e9, allow_nan=False)
ATTEMPTS = st.integers(1, 1000)
NO_SECONDS = [-1, -0.001, math.inf, -math.inf, math.nan, True, "1", b"1", None]
# The years 1970 to 2262: what the server's 64 bits of nanoseconds can say.
MOMENTS_NS = st.integers(0, 2**63 - 1)


@given(SECONDS, ATTEMPTS)
def test_a_number_is_the_delay_of_every_attempt(seconds: float, attempt: int) -> None:
    assert delay_of(seconds, attempt) == seconds


@given(st.lists(SECONDS, min_size=1), ATTEMPTS)
def test_a_list_gives_each_attempt_its_delay_and_the_last_repeats(delays: list[float], attempt: int) -> None:
    expected = delays[attempt - 1] if attempt <= len(delays) else delays[-1]
    assert delay_of(delays, attempt) == delay_of(tuple(delays), attempt) == expected


@given(ATTEMPTS)
def test_a_function_is_asked_with_the_number_of_the_attempt(attempt: int) -> None:
    assert delay_of(lambda number: number * 2, attempt) == attempt * 2


@pytest.mark.parametrize("delay", NO_SECONDS)
def test_a_function_that_returns_no_delay_is_told_so(delay: Any) -> None:
    with pytest.raises(UsageError, match=r"backoff\(3\) is .*; a delay is a finite number of seconds"):
        delay_of(lambda _: delay, 3)


@pytest.mark.parametrize("backoff", [0, 1, 0.5, [0], [1, 2.5], (1,), range(1, 4), lambda attempt: attempt])
def test_every_form_of_backoff_is_accepted(backoff: Any) -> None:
    check_backoff(backoff)


@pytest.mark.parametrize("backoff", [*NO_SECONDS, {"a": 1}, {1, 2}, object()])
def test_what_is_no_backoff_is_refused(backoff: Any) -> None:
    with pytest.raises(UsageError, match="backoff is "):
        check_backoff(backoff)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        check_backoff([])


@pytest.mark.parametrize("delay", NO_SECONDS)
def test_a_bad_entry_of_a_list_is_named_by_its_position(delay: Any) -> None:
    with pytest.raises(UsageError, match=r"backoff\[1\]"):
        check_backoff([1, delay])


@given(
    st.floats(min_value=0, max_value=1e6, allow_nan=False),
    st.integers(1, 60),
    st.none() | st.integers(1, 80),
)
def test_exp_backoff_doubles_and_then_repeats(
    start: float, num_entries: int, repeat_after: int | None
) -> None:
    delays = exp_backoff(start, num_entries=num_entries, repeat_after=repeat_after)

    assert len(delays) == num_entries
    assert delays[0] == start
    for entry, (before, after) in enumerate(pairwise(delays), start=1):
        doubles = repeat_after is None or entry < repeat_after
        assert after == (before * 2 if doubles else before)

    check_backoff(delays)


def test_exp_backoff_gives_what_the_node_library_gives() -> None:
    assert exp_backoff(1) == [1, 2, 4, 8, 16]
    assert exp_backoff(1, 4, 2) == exp_backoff(1, num_entries=4, repeat_after=2) == [1, 2, 2, 2]
    assert exp_backoff(1, num_entries=3) == [1, 2, 4]
    assert exp_backoff(1, repeat_after=3) == [1, 2, 4, 4, 4]


@pytest.mark.parametrize("start", NO_SECONDS)
def test_exp_backoff_refuses_a_start_that_is_no_delay(start: Any) -> None:
    with pytest.raises(UsageError, match="start"):
        exp_backoff(start)


@pytest.mark.parametrize("counts", [{"num_entries": 0}, {"num_entries": -1}, {"repeat_after": 0}])
def test_exp_backoff_refuses_counts_below_one(counts: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(counts))):
        exp_backoff(1, **counts)


@pytest.mark.parametrize("counts", [{"num_entries": 2000}, {"start": 1e300, "num_entries": 100}])
def test_exp_backoff_refuses_what_doubles_beyond_every_number(counts: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="num_entries"):
        exp_backoff(**{"start": 1.0, **counts})


@given(st.integers(0, 10**9), st.floats(0, 1))
def test_jitter_stays_between_half_the_delay_and_the_delay(tries: int, chance: float) -> None:
    ceiling = min(5.0, 0.1 * 2 ** min(tries, 100))
    assert ceiling / 2 <= jittered(tries, first=0.1, most=5.0, rng=lambda: chance) <= ceiling


@given(st.integers(0, 2**53))
def test_nanoseconds_survive_the_way_through_seconds(ns: int) -> None:
    # A float has 53 bits: up to three months it holds every nanosecond.
    assert abs(to_ns(from_ns(ns)) - ns) <= 1


@given(st.integers(0, 10**9))
def test_whole_milliseconds_of_some_days_are_exact_in_both_directions(ms: int) -> None:
    assert to_ns(ms / 1000) == ms * 10**6
    assert from_ns(ms * 10**6) == ms / 1000


@given(MOMENTS_NS)
def test_a_moment_keeps_its_microseconds_and_its_zone(ns: int) -> None:
    moment = utc_from_ns(ns)

    assert moment.tzinfo is UTC
    assert moment - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(microseconds=ns // 1000)


@given(
    st.datetimes(
        min_value=datetime(1970, 1, 2),
        max_value=datetime(9998, 12, 30),
        timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    )
)
def test_a_moment_written_as_text_is_the_same_moment_when_read(moment: datetime) -> None:
    text = utc_text(moment)

    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == moment
