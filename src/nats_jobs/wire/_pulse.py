"""Since when nothing can have been waiting unread: the honest receipt time of a message.

A message may sit in buffers while the event loop is blocked, the whole process is stopped or megabytes
are in front of it. Its ack deadline runs all the while, so a lease must be counted from before that, not
from the moment we got to read. The server answers in order: what comes after a PONG was sent after the PING.
So a message that is read now was not sent before the last answered PING was. That is up to a period and
a round trip too early, and never too late, whatever lies between the server and us.

The pulse is a task that sees to it that there is a fresh PING, once somebody asked; until then the keepalive's
must do. Its beats also tell how long the event loop was held: by how much one comes late.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

__all__ = ("DEFAULT_PERIOD", "Pulse")

DEFAULT_PERIOD = 0.5


class Pulse:
    """`sent_not_before` is a moment not later than the sending of any message that is read now."""

    def __init__(self, on_stall: Callable[[float], None]) -> None:
        self.period = DEFAULT_PERIOD
        self.wanted = False
        self.sent_not_before = anyio.current_time()
        self._on_stall = on_stall

    def restart(self) -> None:
        """Start over with a fresh link: nothing can have been sent on it before now."""
        self.sent_not_before = anyio.current_time()

    def answered(self, sent_at: float) -> None:
        """The PING of that moment was answered."""
        self.sent_not_before = max(self.sent_not_before, sent_at)

    async def beat(self, feel: Callable[[], None]) -> None:
        """Have `feel` called in each period, when somebody wants to know; until cancelled."""
        while True:
            period = self.period
            due = anyio.current_time() + period
            await anyio.sleep_until(due)
            late = anyio.current_time() - due
            if late > period:
                self._on_stall(late)

            if self.wanted:
                feel()
