"""Which tick of which schedule a job is of: two headers, which its enqueuer has set."""

from __future__ import annotations

from datetime import datetime

from .._untrusted import parse_moment
from ..errors import Malformed
from ..wire import Headers

__all__ = ("SCHEDULED_FOR", "SCHEDULE_ID", "scheduled_for")

SCHEDULE_ID = "Nats-Jobs-Schedule"
SCHEDULED_FOR = "Nats-Jobs-Scheduled-For"


def scheduled_for(headers: Headers) -> datetime | None:
    """Return the tick in UTC; None for a job of no schedule, or whose header is no moment."""
    try:
        return parse_moment(headers.get(SCHEDULED_FOR, ""), SCHEDULED_FOR)
    except Malformed:
        return None
