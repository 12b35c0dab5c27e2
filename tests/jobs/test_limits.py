"""Which attempt is the last: nothing goes on for ever, and nothing stays where nobody can reach it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, strategies as st

from nats_jobs.jobs._limits import SPARE_DELIVERIES, Limits

NUM_ATTEMPTS = st.integers(1, 100)


@st.composite
def limits_of_any_consumer(draw: st.DrawFn) -> Limits:
    """What set-up can lead to: our own `max_deliver`, none, or one of the user's that is large enough."""
    num_attempts = draw(NUM_ATTEMPTS)
    return Limits(num_attempts, draw(st.just(0) | st.integers(num_attempts, num_attempts + 50)))


def ours(num_attempts: int) -> Limits:
    return Limits(num_attempts, num_attempts + SPARE_DELIVERIES)


def comes_again(limits: Limits, attempt: int, *, failed: bool, delayed: bool = False) -> bool:
    """Whether we would ask the server for another delivery; otherwise the job becomes a dead letter."""
    if limits.is_crash_loop(attempt):
        return False

    if failed:
        return attempt < limits.last_attempt(delayed=delayed)

    return not limits.is_last_delivery(attempt)


def deliveries(limits: Limits) -> Iterable[int]:
    return range(1, (limits.max_deliver or 500) + 1)


@given(limits_of_any_consumer(), st.booleans(), st.booleans())
def test_no_job_is_given_back_that_the_server_would_never_deliver_again(
    limits: Limits, failed: bool, delayed: bool
) -> None:
    for attempt in deliveries(limits):
        if comes_again(limits, attempt, failed=failed, delayed=delayed) and limits.max_deliver:
            assert attempt < limits.max_deliver


@given(limits_of_any_consumer(), st.booleans())
def test_the_failing_attempt_number_num_attempts_is_the_last(limits: Limits, delayed: bool) -> None:
    last = limits.num_attempts + delayed
    if limits.max_deliver:
        last = min(last, limits.max_deliver)

    assert [n for n in deliveries(limits) if comes_again(limits, n, failed=True, delayed=delayed)] == [
        *range(1, last)
    ]


@given(NUM_ATTEMPTS)
def test_an_interruption_never_exhausts_a_job_while_deliveries_are_left(num_attempts: int) -> None:
    limits = ours(num_attempts)
    again = [n for n in deliveries(limits) if comes_again(limits, n, failed=False)]
    assert again == [*range(1, num_attempts + SPARE_DELIVERIES)]


@given(NUM_ATTEMPTS)
def test_without_a_limit_at_the_server_an_interruption_never_exhausts_a_job(num_attempts: int) -> None:
    limits = Limits(num_attempts, 0)
    assert all(comes_again(limits, attempt, failed=False) for attempt in range(1, 2000))
    assert not any(limits.is_crash_loop(attempt) for attempt in range(1, 2000))


@given(NUM_ATTEMPTS)
def test_a_delivery_above_num_attempts_is_still_performed(num_attempts: int) -> None:
    limits = ours(num_attempts)
    assert not any(limits.is_crash_loop(attempt) for attempt in range(1, num_attempts + SPARE_DELIVERIES))
    assert limits.is_crash_loop(num_attempts + SPARE_DELIVERIES)


@given(limits_of_any_consumer())
def test_every_promised_attempt_is_performed(limits: Limits) -> None:
    assert not any(limits.is_crash_loop(attempt) for attempt in range(1, limits.num_attempts + 1))


@pytest.mark.parametrize("spare", [0, 1])
def test_a_max_deliver_with_nothing_to_spare_leaves_the_last_delivery_to_the_handler(spare: int) -> None:
    limits = Limits(5, 5 + spare)
    assert not limits.is_crash_loop(5 + spare)
    assert limits.is_last_delivery(5 + spare)
    assert limits.last_attempt() == 5
