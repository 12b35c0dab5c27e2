"""Background jobs: definitions, workers, the life of a job, enqueueing."""

from ..jetstream import Enqueued as Enqueued
from ._definition import JobDef as JobDef, JobOptions as JobOptions, job as job
from ._detached_job import DetachedJob as DetachedJob
from ._handle import JobHandle as JobHandle
from ._job import Fence as Fence, Job as Job
from ._opening import job_processor as job_processor
from ._processor import JobProcessor as JobProcessor
from ._reasons import CancelReason as CancelReason
from ._run import run as run
from ._worker import WorkerStatistics as WorkerStatistics

__all__ = (
    "CancelReason",
    "DetachedJob",
    "Enqueued",
    "Fence",
    "Job",
    "JobDef",
    "JobHandle",
    "JobOptions",
    "JobProcessor",
    "WorkerStatistics",
    "job",
    "job_processor",
    "run",
)
