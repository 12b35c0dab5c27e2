"""The events of a processor as a stream, for one who reads them in a task of its own."""

from __future__ import annotations

import logging
from typing import Self

import anyio

from .._mailbox import Mailbox
from ..events import Event

__all__ = ("EventStream",)

_BUFFER = 4096

logger = logging.getLogger("nats_jobs")


class EventStream:
    """Events in order, from when it was opened until the processor ends: `async for event in stream`.

    It buffers 4096; a reader that is slower loses the newest, and warnings are logged. Several tasks may
    receive; each event goes to one of them.
    """

    def __init__(self) -> None:
        # All that is there in one turn: two hundred short jobs bring a thousand events in theirs, and a reader that is
        # quick enough must not fall behind.
        self._mailbox: Mailbox[Event] = Mailbox(turn=_BUFFER)
        self._missed = 0

    @property
    def pending(self) -> int:
        """Events in the buffer."""
        return len(self._mailbox)

    async def receive(self) -> Event:
        """Wait for the next event. Cancelling loses none.

        Raises:
            anyio.EndOfStream: the processor has ended, and nothing is left.
        """
        await self._mailbox.wait()
        return self._mailbox.take()

    def receive_nowait(self) -> Event:
        """Return the next event.

        Raises:
            anyio.WouldBlock: there is none now.
        """
        if not self._mailbox:
            raise anyio.WouldBlock

        return self._mailbox.take()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    def offer(self, event: Event) -> None:
        """Called with each event."""
        if len(self._mailbox) < _BUFFER:
            self._mailbox.put(event)
            return

        self._missed += 1
        # The 1st, the 10th, the 100th ...: a line for each would be one more flood.
        if str(self._missed).strip("0") == "1":
            logger.warning(
                "a reader of events is too slow and has missed %s (%d so far)",
                type(event).__name__,
                self._missed,
            )

    def end(self) -> None:
        """Let the iteration end when the buffer is empty."""
        self._mailbox.end()
