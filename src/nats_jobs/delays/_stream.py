"""What a stream needs so that the server keeps schedules in it, and how consumers stay clear of them. No IO.

A server keeps a message until its time, and then stores it anew for the workers (ADR-51). Until then it is an
ordinary message to every consumer whose filter covers its subject, which would hand it out as a job. So schedules have
subjects of their own, in the stream of their jobs, and our consumers have the stream's other subjects as their filter.

Below nats-server 2.12 the flag is dropped without a word, and a schedule stored as an ordinary message: nothing here
is asked for below that level, and nothing believed that is not in the configuration which the server returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = (
    "FILTER_OF_JOBS",
    "MIN_API_LEVEL",
    "covers_schedules",
    "filter_of_jobs",
    "filters_of",
    "has_schedules",
    "job_subjects",
    "may_have_schedules",
    "schedules_of",
    "with_schedules",
)

MIN_API_LEVEL = 2
"""Of JetStream's API: that of nats-server 2.12, which was the first with schedules for one moment."""

FILTER_OF_JOBS = "nats_jobs.filter_of_jobs"
"""In the metadata of a consumer whose filter nobody asked for: it follows the subjects of the stream."""

# The time to live makes a schedule outlast the stream's `max_age`; the batches are for schedules that repeat.
_FLAGS = {
    "allow_msg_schedules": True,
    "allow_msg_ttl": True,
    "allow_atomic": True,
}
# With these the server accepts no schedules, or drops them.
_EXCLUSIVE: dict[str, Any] = {
    "discard": "new",
    "retention": "interest",
    "deny_purge": True,
    "sealed": True,
    "allow_msg_counter": True,
}


def schedules_of(stream: str) -> str:
    """Return the subjects of all schedules in a stream."""
    return f"nats_jobs.schedules.{stream}.>"


def may_have_schedules(config: dict[str, Any], filters: Sequence[str] = ()) -> bool:
    """Whether schedules can be kept in a stream of this configuration, and no consumer with `filters` gets them."""
    asked = config.get("allow_msg_schedules") is not False and not (
        config.get("mirror") or config.get("sources")
    )
    ours = schedules_of(config["name"])
    return (
        asked
        and not any(config.get(field) == value for field, value in _EXCLUSIVE.items())
        and not any(_overlap(ours, other) for other in (*job_subjects(config), *filters))
    )


def with_schedules(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with what schedules need. What it says already stays, but for the subjects."""
    return _FLAGS | config | {"subjects": [*job_subjects(config), schedules_of(config["name"])]}


def has_schedules(config: dict[str, Any]) -> bool:
    """Whether a stream, as the server returned it, takes schedules of ours."""
    return bool(config.get("allow_msg_schedules")) and schedules_of(config["name"]) in _subjects(config)


def job_subjects(config: dict[str, Any]) -> list[str]:
    """Return the subjects of a stream, without those of its schedules."""
    ours = schedules_of(config["name"])
    return [subject for subject in _subjects(config) if subject != ours]


def filters_of(consumer: dict[str, Any]) -> list[str]:
    """Return what a consumer is limited to; nothing when it has all that is in its stream."""
    one = consumer.get("filter_subject")
    return [one] if one else list(consumer.get("filter_subjects") or ())


def filter_of_jobs(config: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a consumer that leave out the schedules of a stream."""
    subjects = job_subjects(config)
    one = {"filter_subject": subjects[0]} if len(subjects) == 1 else {"filter_subjects": subjects}
    return one | {"metadata": {FILTER_OF_JOBS: "true"}}


def covers_schedules(consumer: dict[str, Any], stream: str) -> bool:
    """Whether a consumer would hand out schedules as if they were jobs."""
    filters = filters_of(consumer)
    return not filters or any(_overlap(schedules_of(stream), subject) for subject in filters)


def _subjects(config: dict[str, Any]) -> list[str]:
    return list(config.get("subjects") or ())


def _overlap(one: str, other: str) -> bool:
    """Whether some subject matches both patterns."""
    ours, theirs = one.split("."), other.split(".")
    for a, b in zip(ours, theirs, strict=False):
        if ">" in (a, b):
            return True

        if a != b and "*" not in (a, b):
            return False

    return len(ours) == len(theirs)
