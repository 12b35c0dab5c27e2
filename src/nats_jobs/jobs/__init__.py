"""Background jobs: definitions, workers, the life of a job, enqueueing."""

from ..delays import NOT_BEFORE as NOT_BEFORE
from ..jetstream import Enqueued as Enqueued
from ._definition import JobDef as JobDef, JobOptions as JobOptions, PayloadOf as PayloadOf, job as job
from ._definition_checks import is_async as is_async
from ._destination import destination_of as destination_of, subject_of as subject_of
from ._detached_job import DetachedJob as DetachedJob, detach as detach
from ._emitter import Emitter as Emitter, logger as logger
from ._endings import (
    Cancelled as Cancelled,
    Done as Done,
    Ending as Ending,
    Failed as Failed,
    Interrupted as Interrupted,
    Lost as Lost,
    Rejected as Rejected,
    Snoozed as Snoozed,
)
from ._handle import JobHandle as JobHandle
from ._handler_thread import HandlerThread as HandlerThread
from ._handlers import finish as finish
from ._job import Fence as Fence, Job as Job
from ._middleware import (
    EnqueueRequest as EnqueueRequest,
    Middleware as Middleware,
    MiddlewareStack as MiddlewareStack,
)
from ._payload import codec_for as codec_for
from ._process_child import refuse_in_import as refuse_in_import, tell_parent as tell_parent
from ._process_parent import ProcessEnded as ProcessEnded
from ._process_pool import ProcessPool as ProcessPool
from ._processor import Processor as Processor, Service as Service
from ._reasons import CancelReason as CancelReason
from ._rehearsal import Rehearsal as Rehearsal
from ._setup import set_up_stream as set_up_stream
from ._shutdown import check_grace as check_grace
from ._tick import SCHEDULE_ID as SCHEDULE_ID, SCHEDULED_FOR as SCHEDULED_FOR
from ._unresponsive import OnUnresponsive as OnUnresponsive, UnresponsivePolicy as UnresponsivePolicy
from ._worker import WorkerStatistics as WorkerStatistics

__all__ = (
    "NOT_BEFORE",
    "SCHEDULED_FOR",
    "SCHEDULE_ID",
    "CancelReason",
    "Cancelled",
    "DetachedJob",
    "Done",
    "Emitter",
    "Ending",
    "EnqueueRequest",
    "Enqueued",
    "Failed",
    "Fence",
    "HandlerThread",
    "Interrupted",
    "Job",
    "JobDef",
    "JobHandle",
    "JobOptions",
    "Lost",
    "Middleware",
    "MiddlewareStack",
    "OnUnresponsive",
    "PayloadOf",
    "ProcessEnded",
    "ProcessPool",
    "Processor",
    "Rehearsal",
    "Rejected",
    "Service",
    "Snoozed",
    "UnresponsivePolicy",
    "WorkerStatistics",
    "check_grace",
    "codec_for",
    "destination_of",
    "detach",
    "finish",
    "is_async",
    "job",
    "logger",
    "refuse_in_import",
    "set_up_stream",
    "subject_of",
    "tell_parent",
)
