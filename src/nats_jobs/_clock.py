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
    be younger than it is. It counts on the same scale as `time.monotonic`.
    """
    loop = current_token().native_token
    if isinstance(loop, asyncio.AbstractEventLoop):
        return time.monotonic if type(loop).__module__.startswith("uvloop") else loop.time

    import trio

    return trio.current_time
