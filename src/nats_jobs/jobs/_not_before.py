"""Jobs that wait for their time: a header says when, and who receives the job sooner gives it back until then.

The wait costs one delivery, which is not an attempt (`Limits.last_attempt`).

Any producer can send the header, so it is bounded: a time further away than `max_delay` is refused when it is
enqueued, and a message that carries one is malformed. While it waits a job counts in the consumer's
`max_ack_pending`, so our consumers have no such limit (`_setup`): demand is what bounds how much is delivered.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from .._untrusted import parse_moment
from ..delays import NOT_BEFORE, due_of, is_schedule
from ..errors import Malformed, UsageError
from ..jetstream import Delivery

__all__ = ("MAX_DELAY", "due_at", "seconds_to_wait", "was_delayed")

# Seconds: a year.
MAX_DELAY = 365 * 86_400.0
# Seconds by which the clocks of producer and worker may differ.
_CLOCK_SKEW = 60.0
# Seconds after which what is no job is looked at again.
_AGAIN = 60.0
_NOT_BEFORE = NOT_BEFORE.encode()


def due_at(delay: Any, at: Any, max_delay: float = MAX_DELAY) -> datetime | None:
    """Return when a job is to be performed; None when its time has come already.

    Raises:
        UsageError: both were given, one that is not a delay or not an aware datetime, or one beyond `max_delay`.
    """
    if delay is not None and at is not None:
        raise UsageError("both delay and at were given; give one of them")

    if delay is not None:
        at = _after(delay)

    if at is None:
        return None

    if not isinstance(at, datetime) or at.tzinfo is None:
        raise UsageError(f"at is {at!r}; a datetime with a time zone is needed, such as datetime.now(UTC) is")

    wait = (at - datetime.now(UTC)).total_seconds()
    if wait > max_delay:
        raise UsageError(
            f"the job would wait for {wait:.0f} s, beyond max_delay of {max_delay:g} s; "
            "give its definition a larger max_delay"
        )

    return at.astimezone(UTC) if wait > 0 else None


def was_delayed(delivery: Delivery) -> bool:
    """Whether the job was enqueued with a delay."""
    return delivery.has_headers and delivery.first_header(_NOT_BEFORE) is not None


def seconds_to_wait(delivery: Delivery, max_delay: float) -> float:
    """Return how long it is until a delivered job may start; 0 when it may. A header that is not a time is ignored.

    Raises:
        Malformed: the time is further away than any producer of ours would set.
    """
    if is_schedule(delivery.subject):
        return _until_it_is_gone(delivery)

    text = delivery.first_header(_NOT_BEFORE)
    if text is None:
        return 0.0

    try:
        moment = parse_moment(text, NOT_BEFORE)
    except Malformed:
        return 0.0

    wait = (moment - datetime.now(UTC)).total_seconds()
    if wait > max_delay + _CLOCK_SKEW:
        raise Malformed(NOT_BEFORE, f"{wait:.0f} s away, beyond max_delay of {max_delay:g} s")

    return max(0.0, wait)


def _until_it_is_gone(delivery: Delivery) -> float:
    """A consumer without a filter was given a schedule, which is no job: the server removes it at its time."""
    try:
        wait = (due_of(delivery.headers) - datetime.now(UTC)).total_seconds()
    except Malformed:
        return _AGAIN

    return max(_AGAIN, wait + _CLOCK_SKEW)


def _after(delay: Any) -> datetime:
    try:
        if not isinstance(delay, bool) and delay >= 0:
            return datetime.now(UTC) + timedelta(seconds=delay)
    except (TypeError, ValueError, OverflowError):
        # Not a number, or beyond the year 9999.
        pass

    raise UsageError(f"delay is {delay!r}; a finite number of seconds, 0 or more, is needed")
