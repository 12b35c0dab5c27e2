"""The time of the server, by which all schedulers go: their own clocks may differ by seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from .._clock import Clock
from .._untrusted import field_of, parse_moment
from ..jetstream import JetStreamApi

__all__ = ("ServerClock", "time_of_stream")

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


async def time_of_stream(api: JetStreamApi, stream: str) -> datetime:
    """Ask the leader of a stream, which stores what is published to it, for its time."""
    info = await api.stream(stream)
    what = f"the answer to STREAM.INFO.{stream}"
    return parse_moment(field_of(info.fields, "ts", str, what), what)
