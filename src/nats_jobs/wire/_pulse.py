"""Since when nothing can have been waiting unread: the honest receipt time of a message.

A message may sit in the socket while the event loop is blocked or the whole process is stopped. Its
ack deadline runs all the while, so a lease must be counted from before the pause, not from the moment
we got to read. The pulse is a task that notes the time twice in a period's length; at each beat, what
had arrived by the beat *before* has been read, because the reader had its turns in between. So a
message read now arrived after the beat before the last one. That is up to two periods too early, and
never too late.

The same beats tell how long the event loop was held: a beat that comes late by more than the others.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

__all__ = ("DEFAULT_PERIOD", "Pulse")

DEFAULT_PERIOD = 0.5


class Pulse:
    """`arrived_after` is a moment not later than the arrival of any byte that is read now."""

    def __init__(self, on_stall: Callable[[float], None] | None = None) -> None:
        self.period = DEFAULT_PERIOD
        self.arrived_after = anyio.current_time()
        # Kept by the reader: whether it has emptied the socket since the last beat, or waits at the empty socket.
        self.drained = False
        self.reading = False
        self._last_beat = self.arrived_after
        self._on_stall = on_stall

    def restart(self) -> None:
        """Begin anew with a fresh link: nothing can have arrived on it before now."""
        self.arrived_after = self._last_beat = anyio.current_time()

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            period = self.period
            due = anyio.current_time() + period
            await anyio.sleep_until(due)
            now = anyio.current_time()
            if self._on_stall is not None and now - due > period:
                self._on_stall(now - due)

            self._note(now)

    def _note(self, now: float) -> None:
        if self.drained or self.reading:
            self.arrived_after = self._last_beat

        self.drained = False
        self._last_beat = now
