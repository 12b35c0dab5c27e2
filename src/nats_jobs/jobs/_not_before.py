"""Jobs that wait for their time: a header says when, and who receives the job sooner gives it back until then.

The wait costs one delivery, which is no attempt (`Limits.last_attempt`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import UsageError
from ..jetstream import Delivery
from ..units import utc_text

__all__ = ("NOT_BEFORE", "not_before", "seconds_to_wait", "was_delayed")

NOT_BEFORE = "Nats-Jobs-Not-Before"
_NOT_BEFORE = NOT_BEFORE.encode()


def not_before(delay: Any, at: Any) -> str | None:
    """Return the header for a job that is to wait; None when its time has come already.

    Raises:
        UsageError: both were given, or one that is no delay and no aware datetime.
    """
    if delay is not None and at is not None:
        raise UsageError("delay and at together; give one of them")

    if delay is not None:
        at = _after(delay)

    if at is None:
        return None

    if not isinstance(at, datetime) or at.tzinfo is None:
        raise UsageError(f"at is {at!r}; a datetime with a time zone is needed, such as datetime.now(UTC) is")

    return utc_text(at) if at > datetime.now(UTC) else None


def was_delayed(delivery: Delivery) -> bool:
    """Whether the job was enqueued with a delay."""
    return delivery.has_headers and delivery.first_header(_NOT_BEFORE) is not None


def seconds_to_wait(delivery: Delivery) -> float:
    """Return how long it is until a delivered job may start; 0 when it may. A header that is no time counts as none."""
    text = delivery.first_header(_NOT_BEFORE)
    if text is None:
        return 0.0

    try:
        return max(0.0, (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _after(delay: Any) -> datetime:
    try:
        if not isinstance(delay, bool) and delay >= 0:
            return datetime.now(UTC) + timedelta(seconds=delay)
    except (TypeError, ValueError, OverflowError):
        # Not a number, or beyond the year 9999.
        pass

    raise UsageError(f"delay is {delay!r}; a finite number of seconds, 0 or more, is needed")
