"""The monotonic clock of the running event loop, read afresh at each call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

from anyio.lowlevel import current_token

__all__ = ("Clock", "running_clock")

Clock: TypeAlias = Callable[[], float]


def running_clock() -> Clock:
    """Return a function that tells the time in seconds, on the same scale as `anyio.current_time`.

    uvloop's own clock stands still while a task runs, so that after a blocked loop a lease would seem to
    be younger than it is. It counts on the same scale as `time.monotonic`, as asyncio's own loops do. A
    loop or a Trio clock with a time of its own, such as a test's, is asked for it.
    """
    loop = current_token().native_token
    if isinstance(loop, asyncio.AbstractEventLoop):
        monotonic = type(loop).time is asyncio.BaseEventLoop.time or type(loop).__module__.startswith(
            "uvloop"
        )
        return time.monotonic if monotonic else loop.time

    import trio

    return trio.lowlevel.current_clock().current_time
