"""A definition's handler as a coroutine function, wherever it runs: here, in a thread, in a process."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anyio

from ..errors import ProcessDied
from ._coroutine_driver import StepListener
from ._definition import JobDef
from ._detached_job import detach
from ._handler_thread import HandlerThread
from ._job import Job
from ._process_parent import ProcessEnded
from ._process_pool import ProcessPool
from ._unfinished import refuse_unfinished

__all__ = ("AsyncHandler", "async_handler", "finish")

AsyncHandler: TypeAlias = Callable[[Job[Any], StepListener], Coroutine[Any, Any, None]]
"""Performs a job. The second argument says when the job is given up: a thread goes on, but nobody waits for it."""


@asynccontextmanager
async def async_handler(defn: JobDef[Any]) -> AsyncIterator[AsyncHandler]:
    """Yield a coroutine function that performs one job. Processes that it has started end with the block.

    Raises:
        UsageError: a function that a process would not find.
    """
    if not defn.is_async and defn.run_in == "process":
        pool = ProcessPool(defn.perform)
        try:
            yield _in_process(pool)
        finally:
            await pool.close()
    else:
        yield _in_loop(defn) if defn.is_async else _in_thread(defn)


def _in_loop(defn: JobDef[Any]) -> AsyncHandler:
    perform: Any = defn.perform

    async def in_loop(job: Job[Any], _: StepListener) -> None:
        returned = await perform(job)
        if returned is not None:
            await finish(defn, returned)

    return in_loop


def _in_thread(defn: JobDef[Any]) -> AsyncHandler:
    perform: Any = defn.perform
    limiter = anyio.CapacityLimiter(defn.concurrency)

    async def in_thread(job: Job[Any], listener: StepListener) -> None:
        returned = await HandlerThread(job, perform, listener).run(limiter)
        if returned is not None:
            await finish(defn, returned)

    return in_thread


async def finish(defn: JobDef[Any], returned: object) -> object:
    """Return the result. A plain function may wrap a coroutine function: then the work is still to be done.

    Raises:
        HandlerReturned: it has left work that cannot be done here.
    """
    if inspect.isawaitable(returned):
        returned = await returned

    refuse_unfinished(repr(defn), returned)
    return returned


def _in_process(pool: ProcessPool) -> AsyncHandler:
    async def in_process(job: Job[Any], _: StepListener) -> None:
        # Cancelling kills the process, so a timeout, a stop and a lost lease really end the work.
        try:
            await pool.call(detach(job))
        except ProcessEnded as ended:
            raise ProcessDied(job.stream, job.sequence, ended.reason) from None

    return in_process
