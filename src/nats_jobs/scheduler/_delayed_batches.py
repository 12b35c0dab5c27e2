"""Delayed payloads that are due, handed to one handler many at a time.

Each payload is a job of its own, of which the worker keeps the lease, and which it gives back, tries again or parks as any
other. The first of a batch calls the handler for all; the others wait for how that ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
from nats.js.api import ConsumerConfig

from .._untrusted import parse_moment
from ..delays import NOT_BEFORE
from ..errors import Malformed, Retry, Snooze, UsageError
from ..jobs import Job, JobDef, is_async
from ._delayed import Delayed, check_id, delayed_def, subjects_of

__all__ = ("delayed_batches",)

# Seconds in which what was pulled together becomes one batch.
_LINGER = 0.05

Handler = Callable[[Sequence[Delayed]], Awaitable[object]]


def delayed_batches(id: str, handler: Handler, limit: int) -> JobDef[Any]:
    """Return the definition whose worker hands over what is due under `id`.

    Raises:
        UsageError: see `JobProcessor.run_delayed`.
    """
    check_id(id)
    _check(handler, limit)
    return delayed_def(
        perform=_Batches(handler, limit).perform,
        consumer_config=ConsumerConfig(durable_name=id, ack_wait=30),
        filter_subject=subjects_of(id),
        concurrency=limit,
    )


def _check(handler: Any, limit: Any) -> None:
    if not callable(handler) or not is_async(handler):
        raise UsageError(f"handler is {handler!r}; an async function that takes a list of Delayed is needed")

    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise UsageError(f"limit is {limit!r}; a whole number, 1 or more, is needed")


class _Batch:
    def __init__(self) -> None:
        self.jobs: list[Job[Any]] = []
        self.full = anyio.Event()
        self.ended = anyio.Event()
        self.outcome: type[Exception] | None = Snooze
        """What ends the others as the first was ended; unless it says otherwise, it was interrupted."""


class _Batches:
    """Puts jobs together, and hands them over one batch at a time."""

    def __init__(self, handler: Handler, limit: int) -> None:
        self._handler = handler
        self._limit = limit
        self._turn = anyio.Lock()
        self._open: _Batch | None = None

    async def perform(self, job: Job[Any]) -> None:
        batch = self._open = self._open or _Batch()
        batch.jobs.append(job)
        if len(batch.jobs) == self._limit:
            self._close(batch)

        if job is batch.jobs[0]:
            await self._lead(batch)
        else:
            await self._follow(batch, job)

    async def _lead(self, batch: _Batch) -> None:
        try:
            async with self._turn:
                with anyio.move_on_after(_LINGER):
                    await batch.full.wait()

                self._close(batch)
                await self._handler([Delayed(job.payload, _due(job)) for job in batch.jobs])

            batch.outcome = None
        except Exception:
            batch.outcome = Retry
            raise
        finally:
            self._close(batch)
            batch.ended.set()

    async def _follow(self, batch: _Batch, job: Job[Any]) -> None:
        try:
            await batch.ended.wait()
        finally:
            if batch is self._open:
                # It is not to be handed over any more.
                batch.jobs.remove(job)

        if batch.outcome is not None:
            raise batch.outcome

    def _close(self, batch: _Batch) -> None:
        if batch is self._open:
            self._open = None

        batch.full.set()


def _due(job: Job[Any]) -> Any:
    try:
        return parse_moment(job.headers.get(NOT_BEFORE, ""), NOT_BEFORE)
    except Malformed:
        return job.enqueued_at
