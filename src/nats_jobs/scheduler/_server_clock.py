"""The time of the server, by which all schedulers go: their own clocks may differ by seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from .._clock import Clock

__all__ = ("ServerClock",)

# Seconds. An answer that took longer tells too little of when it was given, if a quicker one can be had.
_QUICK = 0.01
_MAX_TRIES = 3


class ServerClock:
    """The server's time of one moment, and how long ago by the monotonic clock that was.

    It is never ahead of the server: the time that an answer was under way is taken for nothing.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: tuple[datetime, float] | None = None

    @property
    def is_set(self) -> bool:
        return self._known is not None

    def now(self) -> datetime:
        """Return the server's time; it must have been asked for."""
        assert self._known is not None
        moment, known_at = self._known
        return moment + timedelta(seconds=self._clock() - known_at)

    async def ask(self, server_time: Callable[[], Awaitable[datetime]]) -> None:
        """Ask the server, up to three times if the answers are slow; the quickest counts."""
        quickest = float("inf")
        for _ in range(_MAX_TRIES):
            asked_at = self._clock()
            moment = await server_time()
            answered_at = self._clock()
            if answered_at - asked_at < quickest:
                quickest = answered_at - asked_at
                self._known = moment, answered_at

            if quickest < _QUICK:
                return
