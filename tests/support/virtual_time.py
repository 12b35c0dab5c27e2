"""Backends whose clock does not wait: when nothing can happen, it is at once the time at which something will.

Import the fixture `anyio_backend` into a module to run its tests on both. Only for tests without real
sockets and threads: the clock would run ahead of them.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import pytest
import trio
import trio.testing
from anyio.lowlevel import current_token

__all__ = ("VirtualClock", "VirtualLoop", "anyio_backend", "pause")

_ROUNDING = 1e-9
# Turns of the event loop without anything to wait for.
_PATIENCE = 100_000


class VirtualClock:
    """A clock that stands still until it is told to move. Call it for the time in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        assert seconds >= 0, "time does not run backwards"
        self.now += seconds


class _NeverWaiting(selectors.DefaultSelector):
    """Asked to wait for a timer, it moves the clock instead."""

    _turns = 0

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Without a timer only another thread can wake the loop, and that takes real time.
        events = super().select(None if timeout is None else 0)
        self._turns = 0 if timeout else self._turns + 1
        assert self._turns < _PATIENCE, "time stands still: somebody is always busy"
        if not events and timeout:
            # A little more: the sum of two floats may fall short of the time it was meant to be.
            self._clock.advance(timeout + _ROUNDING)

        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop on a virtual clock."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        super().__init__(_NeverWaiting(self.clock))

    def time(self) -> float:
        return self.clock()


def pause(seconds: float) -> None:
    """Let time pass while nobody runs: a blocked loop, a stopped process."""
    loop = current_token().native_token
    if isinstance(loop, VirtualLoop):
        loop.clock.advance(seconds)
    else:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock), "not on a virtual clock"
        clock.jump(seconds)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}

    return "asyncio", {"loop_factory": VirtualLoop}
