"""A processor in a thread of its own, for threads that have no event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ..errors import UsageError
from ..processor import JobProcessor

__all__ = ("Background", "closed_error")

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Background:
    """A processor that is open from the moment this is made until `close`, and the calls to it.

    Args:
        open_processor: called in the new thread.
        backend: of AnyIO.
        closing_timeout: seconds that calls under way may go on when it is closed.

    Raises:
        NatsJobsError: the processor could not be opened. Nothing is left of the thread, nor is it after a Ctrl-C.
    """

    processor: JobProcessor

    def __init__(
        self,
        open_processor: Callable[[], AbstractAsyncContextManager[JobProcessor]],
        backend: str,
        closing_timeout: float,
    ) -> None:
        self._open_processor = open_processor
        self._closing_timeout = closing_timeout
        opened: Future[tuple[JobProcessor, BlockingPortal]] = Future()
        with ExitStack() as stack:
            loop = stack.enter_context(start_blocking_portal(backend, name="nats-jobs-producer"))
            self._served = loop.start_task_soon(self._serve, opened)
            self._served.add_done_callback(lambda served: _pass_on(served, opened))
            try:
                self.processor, self._calls = opened.result()
            except BaseException:
                self._served.cancel()
                raise

            self._loop = stack.pop_all()

    async def _serve(self, opened: Future[tuple[JobProcessor, BlockingPortal]]) -> None:
        """Nesting order is shutdown order: first the calls come to their end, then the processor is closed."""
        async with self._open_processor() as processor:
            with anyio.CancelScope() as scope:
                async with BlockingPortal() as calls:
                    opened.set_result((processor, calls))
                    await calls.sleep_until_stopped()
                    scope.deadline = anyio.current_time() + self._closing_timeout

    @property
    def has_ended(self) -> bool:
        """Whether the processor has failed, or was closed."""
        return self._served.done()

    def call(self, function: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args) -> T:
        """Await `function(*args)` in the thread of the processor. An exception in this one, such as Ctrl-C, cancels it there."""
        try:
            future = self._calls.start_task_soon(function, *args)
        except RuntimeError:
            # Closed meanwhile, by another thread.
            raise closed_error() from None

        try:
            return future.result()
        except CancelledError:
            # The processor failed, and says why; or the time of a call that was under way when it was closed is up.
            self._served.result()
            raise closed_error() from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Wait for the calls under way, for `closing_timeout` seconds at most, and close the processor.

        Raises:
            NatsJobsError: the processor has failed.
        """
        with self._loop:
            if not self.has_ended:
                self._calls.call(self._calls.stop)

            self._served.result()


def closed_error() -> UsageError:
    return UsageError("the producer was closed; make another one")


def _pass_on(served: Future[None], opened: Future[tuple[JobProcessor, BlockingPortal]]) -> None:
    """What has kept the processor from being opened is the error of opening it."""
    if opened.done():
        return

    if served.cancelled():
        opened.cancel()
    else:
        opened.set_exception(served.exception())
