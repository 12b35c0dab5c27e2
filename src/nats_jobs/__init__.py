"""Background jobs on NATS JetStream for Trio and asyncio, with structured concurrency.

async with job_processor("nats://127.0.0.1:4222", stop_signals=(SIGINT, SIGTERM)) as p:
    p.start_soon(ship_orders)
"""

from dataclasses import is_dataclass
from typing import get_type_hints

from . import codecs as codecs, events as events
from ._version import __version__ as __version__
from .backoff import exp_backoff as exp_backoff
from .errors import (
    ConfigMismatch as ConfigMismatch,
    ConnectionLost as ConnectionLost,
    JobTimeout as JobTimeout,
    NatsJobsError as NatsJobsError,
    Reject as Reject,
    Retry as Retry,
    Snooze as Snooze,
)
from .jobs import (
    CancelReason as CancelReason,
    DetachedJob as DetachedJob,
    Enqueued as Enqueued,
    EnqueueRequest as EnqueueRequest,
    Fence as Fence,
    Job as Job,
    JobDef as JobDef,
    JobHandle as JobHandle,
    JobOptions as JobOptions,
    Middleware as Middleware,
    job as job,
)
from .processor import JobProcessor as JobProcessor, job_processor as job_processor, run as run

__all__ = (
    "CancelReason",
    "ConfigMismatch",
    "ConnectionLost",
    "DetachedJob",
    "EnqueueRequest",
    "Enqueued",
    "Fence",
    "Job",
    "JobDef",
    "JobHandle",
    "JobOptions",
    "JobProcessor",
    "JobTimeout",
    "Middleware",
    "NatsJobsError",
    "Reject",
    "Retry",
    "Snooze",
    "__version__",
    "codecs",
    "events",
    "exp_backoff",
    "job",
    "job_processor",
    "run",
)


def _rewrite_modules() -> None:
    """Let what is public say where it is imported from, in tracebacks and in pickles, and not which file it is in."""
    for name in __all__:
        public = globals()[name]
        if "._" in getattr(public, "__module__", ""):
            if is_dataclass(public):
                # They are strings so far, whose names are known in that file only.
                public.__annotations__ = get_type_hints(public)

            public.__module__ = __name__


_rewrite_modules()
