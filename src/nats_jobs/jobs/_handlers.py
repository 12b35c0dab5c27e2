"""A definition's handler as a coroutine function, wherever it runs: here, in a thread, in a process."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import anyio
from anyio import to_process, to_thread

from ._definition import JobDef
from ._job import Fence, Job

__all__ = ("DetachedJob", "async_handler")

T = TypeVar("T")

AsyncHandler = Callable[[Job[Any]], Coroutine[Any, Any, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachedJob(Generic[T]):
    """What a handler in another process is given: the facts of a `Job`, without its connection."""

    payload: T
    data: bytes
    subject: str
    headers: dict[str, str]
    id: str | None
    stream: str
    sequence: int
    attempt: int
    num_attempts: int
    enqueued_at: datetime
    pending: int
    fence: Fence


def async_handler(defn: JobDef[Any]) -> AsyncHandler:
    """Return a coroutine function that performs one job."""
    perform: Any = defn.perform
    if defn.is_async:
        return perform  # type: ignore[no-any-return]

    limiter = anyio.CapacityLimiter(defn.concurrency)
    return _in_process(perform, limiter) if defn.run_in == "process" else _in_thread(perform, limiter)


def _in_thread(perform: Callable[[Job[Any]], object], limiter: anyio.CapacityLimiter) -> AsyncHandler:
    async def in_thread(job: Job[Any]) -> object:
        # A thread cannot be cancelled: its slot stays taken, and its lease kept, until it returns. The limit
        # of this shield is that the job is given up when it does not respond (`Warden`).
        result: Any = None
        with anyio.CancelScope(shield=True) as shield:
            job.when_abandoned(shield.cancel)
            result = await to_thread.run_sync(perform, job, limiter=limiter, abandon_on_cancel=True)

        if job.abandoned is not None:
            raise job.abandoned

        # A plain function may wrap a coroutine function: then the work is still to be done.
        return await result if inspect.isawaitable(result) else result

    return in_thread


def _in_process(perform: Callable[[Any], object], limiter: anyio.CapacityLimiter) -> AsyncHandler:
    module, name = perform.__module__, perform.__qualname__

    async def in_process(job: Job[Any]) -> object:
        # Cancelling kills the process, so a timeout, a stop and a lost lease really end the work.
        return await to_process.run_sync(
            _perform_there, module, name, _detached(job), cancellable=True, limiter=limiter
        )

    return in_process


def _perform_there(module: str, name: str, job: DetachedJob[Any]) -> None:
    """Runs in the other process. By name, because `@job` has put a definition in the function's place."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)

    if isinstance(found, JobDef):
        found = found.perform

    found(job)


def _detached(job: Job[T]) -> DetachedJob[T]:
    return DetachedJob(
        payload=job.payload,
        data=job.data,
        subject=job.subject,
        headers=dict(job.headers),
        id=job.id,
        stream=job.stream,
        sequence=job.sequence,
        attempt=job.attempt,
        num_attempts=job.num_attempts,
        enqueued_at=job.enqueued_at,
        pending=job.pending,
        fence=job.fence,
    )
