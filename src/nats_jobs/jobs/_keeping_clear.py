"""Room for schedules in the stream of a definition, and a filter that keeps them from its consumer.

A stream is given schedules only by a definition that asks for them (`allow_msg_schedules`): a worker of the Node library
cannot start on a stream whose settings are not its own.

No IO.
"""

from __future__ import annotations

from typing import Any

from .. import delays
from ..jetstream import explicit_fields
from ._config_drift import Asked
from ._definition import JobDef

__all__ = ("asked_of_stream", "asks_for_schedules", "filter_of_jobs", "gives_schedules", "kept_clear")


def asks_for_schedules(defn: JobDef[Any]) -> bool:
    """Whether schedules shall be kept in the stream of a definition."""
    return bool(defn.stream_config and defn.stream_config.allow_msg_schedules)


def gives_schedules(defn: JobDef[Any], config: dict[str, Any], level: int) -> bool:
    """Whether a definition asks for schedules, and a stream of this configuration may have them.

    Args:
        level: of JetStream's API.
    """
    consumer = explicit_fields(defn.consumer_config)
    filters = [defn.filter_subject] if defn.filter_subject else delays.filters_of(consumer)
    return (
        asks_for_schedules(defn)
        and level >= delays.MIN_API_LEVEL
        and delays.may_have_schedules(config, filters)
    )


def asked_of_stream(defn: JobDef[Any], existing: dict[str, Any], level: int) -> Asked:
    """Return what a definition asks of a stream that exists, and what belongs to schedules when it is to have them."""
    fields = explicit_fields(defn.stream_config)
    subjects = fields.get("subjects") or delays.job_subjects(existing)
    if gives_schedules(defn, existing | fields | {"subjects": subjects}, level):
        more = delays.with_schedules(fields | {"name": defn.stream, "subjects": subjects})
    elif "subjects" in fields and delays.has_schedules(existing):
        # Another definition has asked for them.
        more = {"subjects": [*subjects, delays.schedules_of(defn.stream)]}
    else:
        more = {}

    config = defn.stream_config
    if config and config.allow_msg_schedules and level < delays.MIN_API_LEVEL:
        # The server would say that it has made the change, each time anew, and drop it.
        config = config.evolve(allow_msg_schedules=None)

    return Asked(config, defn.consumer, more)


def filter_of_jobs(asked: Asked, stream: dict[str, Any]) -> dict[str, Any]:
    """Return the filter that leaves out the schedules of a stream; nothing when none is needed, or another was asked for."""
    if not delays.has_schedules(stream) or delays.filters_of(asked.fields):
        return {}

    return delays.filter_of_jobs(stream)


def kept_clear(
    defn: JobDef[Any], asked: Asked, stream: dict[str, Any], existing: dict[str, Any]
) -> dict[str, Any]:
    """Keep schedules from a consumer that was made without a filter, or with ours when the stream had other subjects."""
    wanted = filter_of_jobs(asked, stream)
    filters = delays.filters_of(existing)
    is_ours = not filters or delays.FILTER_OF_JOBS in (existing.get("metadata") or {})
    if not wanted or not defn.update or not is_ours or sorted(filters) == sorted(delays.filters_of(wanted)):
        return {}

    return wanted
