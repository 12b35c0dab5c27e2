"""Runs a function that recurs, for one tick after the other, and stops it in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime

import anyio

from ..events import Event, FunctionFailed, FunctionReturned
from ..jobs import CancelReason, HandlerThread, ProcessPool, is_async, logger
from ._recurring import Recurring

__all__ = ("Runner",)


class Runner:
    """See `Recurring`."""

    def __init__(self, recurring: Recurring, emit: Callable[[Event], None]) -> None:
        self._recurring = recurring
        self._emit = emit
        self._limiter = anyio.CapacityLimiter(1)
        self._pool = ProcessPool(recurring.function) if recurring.run_in == "process" else None
        self._claimed: datetime | None = None
        self._stop_asked = anyio.Event()
        self._grace_ends = math.inf

    def claimed(self, tick: datetime) -> None:
        """It is for us to run that tick."""
        self._claimed = tick

    def take(self) -> datetime | None:
        """Return the tick that is to be run, once."""
        tick, self._claimed = self._claimed, None
        return tick

    def ask_to_stop(self, grace: float) -> None:
        """Cancel what runs in `grace` seconds; a later call can only shorten that."""
        self._grace_ends = min(self._grace_ends, anyio.current_time() + grace)
        asked, self._stop_asked = self._stop_asked, anyio.Event()
        asked.set()

    async def run(self, tick: datetime) -> None:
        """Run the function for a tick, and tell how that ended. What it raises goes no further."""
        began = anyio.current_time()
        error: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_after_grace, group.cancel_scope)
            try:
                with anyio.fail_after(self._recurring.timeout):
                    await self._call(tick)
            except Exception as raised:
                error = raised

            group.cancel_scope.cancel("the function has ended")

        self._tell(tick, anyio.current_time() - began, error)

    async def close(self) -> None:
        """End its process."""
        if self._pool is not None:
            await self._pool.close()

    async def _call(self, tick: datetime) -> None:
        function = self._recurring.function
        if self._pool is not None:
            await self._pool.call(tick)
        elif is_async(function):
            await function(tick)  # type: ignore[misc]
        else:
            await HandlerThread(tick, function).run(self._limiter)

    async def _cancel_after_grace(self, scope: anyio.CancelScope) -> None:
        while (left := self._grace_ends - anyio.current_time()) > 0:
            asked = self._stop_asked
            with anyio.move_on_after(left):
                await asked.wait()

        scope.cancel(CancelReason.STOP.text)

    def _tell(self, tick: datetime, duration: float, error: Exception | None) -> None:
        id = self._recurring.schedule.id
        if error is None:
            self._emit(FunctionReturned(id=id, tick=tick, duration=duration))
        else:
            logger.error("recurring function %s failed for its tick of %s", id, tick, exc_info=error)
            self._emit(FunctionFailed(id=id, tick=tick, duration=duration, error=error))
