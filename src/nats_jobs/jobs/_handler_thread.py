"""A plain handler in a thread. A thread cannot be cancelled, only told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
from anyio import to_thread

from ._coroutine_driver import StepListener

__all__ = ("HandlerThread",)

_POLL_INTERVAL = 0.02


class HandlerThread:
    """One call in a thread. A job's slot stays taken, and its lease kept, until the handler returns.

    The limit of that is when the job is given up because it does not respond (`listener`). From the moment that it is cut short,
    `anyio.from_thread.check_cancelled()` raises in the thread, as `job.check_cancelled()` does.
    """

    def __init__(
        self, argument: Any, perform: Callable[[Any], object], listener: StepListener | None = None
    ) -> None:
        self._argument = argument
        self._perform = perform
        self._listener = listener
        self._lock = threading.Lock()
        self._began = False
        self._withdrawn = False
        self._ended = False
        self._returned: object = None
        self._raised: BaseException | None = None

    async def run(self, limiter: anyio.CapacityLimiter) -> object:
        """Return what the handler returned, or raise what it raised; also when that comes after a cancellation."""
        cancelled = anyio.get_cancelled_exc_class()
        try:
            # Directly in the job's scope, or AnyIO would not tell the thread when that is cancelled.
            await to_thread.run_sync(self._call, limiter=limiter, abandon_on_cancel=True)
        except cancelled:
            if self._withdraw():
                raise

            await self._wait_ended()
            if isinstance(self._raised, cancelled):
                raise

        raised, self._raised = self._raised, None
        if raised is not None:
            try:
                raise raised
            finally:
                # Its traceback holds this frame.
                del raised

        return self._returned

    def _call(self) -> None:
        with self._lock:
            if self._withdrawn:
                return

            self._began = True

        try:
            self._returned = self._perform(self._argument)
        except BaseException as error:
            self._raised = error
        finally:
            self._ended = True

    def _withdraw(self) -> bool:
        """Return whether the handler has not begun, and never will."""
        with self._lock:
            self._withdrawn = not self._began
            return self._withdrawn

    async def _wait_ended(self) -> None:
        # The limit of this shield is that the job is given up.
        with anyio.CancelScope(shield=True):
            while not self._ended and self._abandoned is None:  # noqa: ASYNC110 - a thread that was left sets no events
                await anyio.sleep(_POLL_INTERVAL)

        if self._abandoned is not None:
            raise self._abandoned

    @property
    def _abandoned(self) -> Exception | None:
        return None if self._listener is None else self._listener.abandoned
