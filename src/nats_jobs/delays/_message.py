"""A delayed job as a schedule: its subject and headers. No IO.

The server stores it anew at its time, with the headers but for those that begin with Nats-Schedule and Nats-Expected,
and without Nats-Msg-Id. So the id goes along in a second header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256

from .._untrusted import parse_moment
from ..dead_letters import Header
from ..errors import Malformed
from ..units import utc_text
from ..wire import Headers
from ._stream import schedules_of

__all__ = (
    "ID",
    "NOT_BEFORE",
    "delayed_jobs_of",
    "due_of",
    "headers_of_delayed_job",
    "headers_of_schedule",
    "id_in",
    "is_schedule",
    "subject_of_schedule",
)

ID = Header.ORIGINAL_ID
NOT_BEFORE = "Nats-Jobs-Not-Before"
"""Of a delayed job that the server does not keep: who receives it sooner gives it back until then."""

_AT = "@at "
_ANY_SCHEDULE = schedules_of("*").partition("*")[0]


def delayed_jobs_of(stream: str) -> str:
    """Return the subjects of all delayed jobs in a stream."""
    return f"{schedules_of(stream).removesuffix('>')}later.*"


def subject_of_schedule(stream: str, id: bytes) -> str:
    """Return where a delayed job of this id is until its time: there is room for one."""
    return delayed_jobs_of(stream).replace("*", sha256(id).hexdigest()[:32])


def is_schedule(subject: str) -> bool:
    """Whether what is stored on a subject is no job: a schedule, or what belongs to schedules."""
    return subject.startswith(_ANY_SCHEDULE)


def headers_of_schedule(
    id: str, stream: str, subject: str, due: datetime, *, outlives_max_age: bool, expected: int = 0
) -> dict[str, str]:
    """Return the headers that make a job one that is stored on `subject` at its time.

    Args:
        outlives_max_age: whether the stream takes a time to live.
        expected: the sequence of the schedule that is replaced; 0 for none.
    """
    headers = {
        "Nats-Schedule": f"{_AT}{utc_text(due)}",
        "Nats-Schedule-Target": subject,
        "Nats-Expected-Stream": stream,
        "Nats-Expected-Last-Subject-Sequence": str(expected),
        ID: id,
    }
    return headers | {"Nats-TTL": "never"} if outlives_max_age else headers


def id_in(headers: Mapping[str, str]) -> str | None:
    """Return the id that a job was enqueued with; None when its publisher gave none."""
    return headers.get("Nats-Msg-Id") or headers.get(ID)


def due_of(headers: Mapping[str, str]) -> datetime:
    """Return when the job of a schedule is due.

    Raises:
        Malformed: it is not a schedule for one moment.
    """
    text = headers.get("Nats-Schedule", "")
    if not text.startswith(_AT):
        raise Malformed("Nats-Schedule", f"a schedule for one moment is expected, not {text[:80]!r}")

    return parse_moment(text.removeprefix(_AT), "Nats-Schedule")


def headers_of_delayed_job(headers: Headers) -> dict[str, str | Sequence[str]]:
    """Return the headers that a delayed job has in whatever way it waits: all but those that are for the server."""
    return {
        name: headers.get_all(name)
        for name in headers
        if not name.lower().startswith("nats-") or name.lower().startswith("nats-jobs-")
    }
