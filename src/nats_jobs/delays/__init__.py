"""Jobs that wait for their time at the server: schedules, one message each, in the stream of their jobs."""

from ._stream import (
    FILTER_OF_JOBS as FILTER_OF_JOBS,
    MIN_API_LEVEL as MIN_API_LEVEL,
    covers_schedules as covers_schedules,
    filter_of_jobs as filter_of_jobs,
    filters_of as filters_of,
    has_schedules as has_schedules,
    job_subjects as job_subjects,
    may_have_schedules as may_have_schedules,
    schedules_of as schedules_of,
    with_schedules as with_schedules,
)

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
