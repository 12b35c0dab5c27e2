"""What a user wraps around every attempt and every enqueue of a processor: telemetry, transactions, error reports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import UsageError
from ..jetstream import Enqueued
from ._coroutine_driver import StepListener
from ._definition import JobDef
from ._handlers import AsyncHandler
from ._job import Job

__all__ = ("EnqueueRequest", "Middleware", "MiddlewareStack")

T = TypeVar("T")


@dataclass(eq=False, kw_only=True)
class EnqueueRequest:
    """One call of `enqueue` or `enqueue_many`, as a middleware sees it."""

    target: JobDef[Any] | str
    payloads: Sequence[Any]
    """One for `enqueue`."""

    ids: Sequence[str] | None = None
    """Those that the caller has given, one for each payload."""

    headers: dict[str, str | Sequence[str]] = field(default_factory=dict)
    """What goes with each job, besides the library's own. A middleware may add to it, or change it."""

    enqueued: Sequence[Enqueued] = ()
    """What the server has confirmed, once it has: to be read at the end of the block."""


class Middleware:
    """Something around every attempt and every enqueue of a processor: `job_processor(middleware=[Tracing()])`.

    Subclass it, and override one method or both; each is usually an `@asynccontextmanager` that yields once. The
    first of the list is outermost. What one does not override costs nothing.
    """

    def around_attempt(self, job: Job[Any]) -> AbstractAsyncContextManager[object]:
        """Return what is entered before the handler is called, and left after it has returned or raised.

        It runs in the event loop and in the scope of the job, also when the handler runs in a thread or a process:
        a timeout, a stop and a lost lease are raised in it as cancellations, and what it raises is what the
        attempt has raised. What it does not let through does not count: then the attempt is completed.
        """
        return nullcontext()

    def around_enqueue(self, request: EnqueueRequest) -> AbstractAsyncContextManager[object]:
        """Return what is entered before jobs are encoded and sent, and left once they are confirmed, or are not."""
        return nullcontext()


class MiddlewareStack:
    """The middleware of one processor, the outermost first.

    Raises:
        UsageError: something in the list is not a `Middleware`.
    """

    def __init__(self, middleware: Iterable[Middleware] = ()) -> None:
        everything = tuple(middleware)
        for one in everything:
            if not isinstance(one, Middleware):
                raise UsageError(f"middleware: {one!r} is not an instance of nats_jobs.Middleware")

        self._attempts = [
            one.around_attempt
            for one in everything
            if type(one).around_attempt is not Middleware.around_attempt
        ]
        self._enqueues = [
            one.around_enqueue
            for one in everything
            if type(one).around_enqueue is not Middleware.around_enqueue
        ]

    @property
    def sees_enqueues(self) -> bool:
        return bool(self._enqueues)

    def wrap(self, handler: AsyncHandler) -> AsyncHandler:
        """Return the handler inside of everything that goes around an attempt; itself if nothing does."""
        if not self._attempts:
            return handler

        async def wrapped(job: Job[Any], listener: StepListener) -> None:
            async with _nested(self._attempts, job):
                await handler(job, listener)

        return wrapped

    @asynccontextmanager
    async def enqueueing(self, request: EnqueueRequest) -> AsyncIterator[None]:
        """Go around one enqueue. The caller fills `request.enqueued` before it leaves.

        Raises:
            UsageError: a middleware kept back the error of an enqueue, for which there is no result now.
        """
        async with _nested(self._enqueues, request):
            yield

        if not request.enqueued and request.payloads:
            raise UsageError(
                "a middleware kept back what went wrong with an enqueue; around_enqueue must let exceptions through"
            )


@asynccontextmanager
async def _nested(
    around: Sequence[Callable[[T], AbstractAsyncContextManager[object]]], what: T
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for one in around:
            await stack.enter_async_context(one(what))

        yield
