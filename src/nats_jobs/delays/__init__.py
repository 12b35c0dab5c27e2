"""Jobs that wait for their time at the server: schedules, one message each, in the stream of their jobs."""

from ._stream import (
    MIN_API_LEVEL as MIN_API_LEVEL,
    covers_schedules as covers_schedules,
    filters_of as filters_of,
    has_schedules as has_schedules,
    job_subjects as job_subjects,
    may_have_schedules as may_have_schedules,
    schedules_of as schedules_of,
    with_schedules as with_schedules,
)

__all__ = (
    "MIN_API_LEVEL",
    "covers_schedules",
    "filters_of",
    "has_schedules",
    "job_subjects",
    "may_have_schedules",
    "schedules_of",
    "with_schedules",
)
