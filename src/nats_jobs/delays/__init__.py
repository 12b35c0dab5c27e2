"""Jobs that wait for their time at the server: schedules, one message each, in the stream of their jobs."""

from ._enqueued import EnqueuedLater as EnqueuedLater
from ._homes import Home as Home, Homes as Homes
from ._listing import scheduled_jobs as scheduled_jobs, streams_with_schedules as streams_with_schedules
from ._message import (
    ID as ID,
    NOT_BEFORE as NOT_BEFORE,
    due_of as due_of,
    headers_of_schedule as headers_of_schedule,
    id_in as id_in,
    is_schedule as is_schedule,
    subject_of_schedule as subject_of_schedule,
)
from ._scheduled import ScheduledJob as ScheduledJob
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
    "ID",
    "MIN_API_LEVEL",
    "NOT_BEFORE",
    "EnqueuedLater",
    "Home",
    "Homes",
    "ScheduledJob",
    "covers_schedules",
    "due_of",
    "filter_of_jobs",
    "filters_of",
    "has_schedules",
    "headers_of_schedule",
    "id_in",
    "is_schedule",
    "job_subjects",
    "may_have_schedules",
    "scheduled_jobs",
    "schedules_of",
    "streams_with_schedules",
    "subject_of_schedule",
    "with_schedules",
)
