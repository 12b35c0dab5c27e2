"""How an attempt ends: the table of endings, row by row, and what holds for every combination."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given, strategies as st

from nats_jobs import CancelReason, Reject, Retry, Snooze
from nats_jobs.errors import JobTimeout
from nats_jobs.jobs._endings import (
    Cancelled,
    Done,
    Ending,
    Failed,
    Interrupted,
    Lost,
    Rejected,
    Snoozed,
    ending_of,
)

ERRORS = st.sampled_from(
    [None, ValueError("v"), Retry(), Retry(3.0), Snooze(2.0), Reject("no"), TimeoutError("t")]
)
REASONS = st.none() | st.sampled_from(CancelReason)


def end(
    reason: CancelReason | None = None, *, returned: bool = False, error: Exception | None = None
) -> Ending:
    timeout = JobTimeout("S", 7, 1.5) if reason is CancelReason.TIMEOUT else None
    return ending_of(reason, returned, error, timeout)


def test_a_handler_that_returns_is_done() -> None:
    assert end(returned=True) == Done()


def test_a_handler_that_raises_has_failed() -> None:
    error = ValueError("v")
    assert end(error=error) == Failed(error)


@pytest.mark.parametrize("delay", [None, 0.0, 3.0])
def test_retry_is_a_failure_with_a_delay_of_its_own(delay: float | None) -> None:
    error = Retry(delay)
    assert end(error=error) == Failed(error, delay)


def test_an_error_of_the_handlers_own_timeout_is_a_plain_failure() -> None:
    error = TimeoutError("somebody else's")
    assert end(error=error) == Failed(error)


def test_a_timeout_is_a_failure_that_names_what_the_handler_raised_meanwhile_as_its_cause() -> None:
    error = ValueError("while being cancelled")
    ending = end(CancelReason.TIMEOUT, error=error)

    assert isinstance(ending, Failed)
    assert isinstance(ending.error, JobTimeout)
    assert ending.error.__cause__ is error
    assert ending.delay is None


def test_a_handler_that_returns_after_its_timeout_has_failed() -> None:
    ending = end(CancelReason.TIMEOUT, returned=True)
    assert isinstance(ending, Failed)
    assert isinstance(ending.error, JobTimeout)


def test_a_retry_raised_because_of_the_timeout_does_not_set_the_delay() -> None:
    assert end(CancelReason.TIMEOUT, error=Retry(500)) == Failed(end_error(), None)


def end_error() -> Exception:
    """Compares equal to any timeout."""

    class AnyTimeout(Exception):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, JobTimeout)

        __hash__ = None  # type: ignore[assignment]

    return AnyTimeout()


@pytest.mark.parametrize("error", [None, ValueError("v"), Retry(3.0)])
def test_a_stop_interrupts_whatever_the_handler_raised_while_being_cancelled(error: Exception | None) -> None:
    assert end(CancelReason.STOP, error=error) == Interrupted("stop")


@pytest.mark.parametrize("reason", [CancelReason.STOP, CancelReason.CANCELLED])
def test_a_handler_that_returns_in_spite_of_being_cancelled_has_done_its_work(reason: CancelReason) -> None:
    assert end(reason, returned=True) == Done()


@pytest.mark.parametrize("error", [None, ValueError("v"), Retry(3.0)])
def test_a_job_cancelled_on_request_is_not_tried_again(error: Exception | None) -> None:
    assert end(CancelReason.CANCELLED, error=error) == Cancelled()


@pytest.mark.parametrize("reason", [None, CancelReason.STOP, CancelReason.TIMEOUT, CancelReason.CANCELLED])
def test_what_the_handler_asks_for_in_words_holds_whatever_it_was_cut_short_for(
    reason: CancelReason | None,
) -> None:
    rejection = Reject("no")
    assert end(reason, error=rejection) == Rejected("rejected", rejection)
    assert end(reason, error=Snooze(2.0)) == Snoozed(2.0)


@given(st.booleans(), ERRORS)
def test_a_lost_lease_wins_over_everything(returned: bool, error: Exception | None) -> None:
    assert end(CancelReason.LEASE_LOST, returned=returned, error=None if returned else error) == Lost()


@given(REASONS, ERRORS)
def test_a_handler_that_did_not_return_is_never_done(
    reason: CancelReason | None, error: Exception | None
) -> None:
    if reason is None and error is None:
        return  # it would have returned

    assert end(reason, error=error) != Done()


def test_a_reason_equals_its_text_prints_its_name_and_survives_pickling() -> None:
    assert [reason for reason in CancelReason if reason == "stop"] == [CancelReason.STOP]
    assert str(CancelReason.STOP) == "CancelReason.STOP"
    for reason in CancelReason:
        assert pickle.loads(pickle.dumps(reason)) is reason is CancelReason(reason.value)


def test_every_combination_has_an_ending() -> None:
    errors = [None, ValueError("v"), Retry(), Snooze(), Reject()]
    for reason, error in itertools.product([None, *CancelReason], errors):
        returned = reason is None and error is None
        ending = end(reason, returned=returned, error=error)
        assert isinstance(ending, Done | Failed | Snoozed | Rejected | Interrupted | Cancelled | Lost)
