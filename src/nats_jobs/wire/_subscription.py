"""One subscription as a stream of messages, with a bounded mailbox."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Self

import anyio

from ..errors import SlowConsumer
from ._messages import Msg

if TYPE_CHECKING:
    from ._connection import Connection

__all__ = ("Subscription",)


class Subscription:
    """Messages of one subject, in order: `async for message in subscription`.

    The mailbox holds `max_messages`. A message that comes when it is full is dropped, and the next
    `receive` raises `SlowConsumer` once, with the count; what is in the mailbox stays readable. The
    connection's reader never waits for anyone.

    It stays alive across reconnects. Messages published while the link was down are not seen, as with
    every core NATS subscription. The iteration ends when the subscription is drained and empty.
    """

    def __init__(self, connection: Connection, subject: str, queue: str, max_messages: int) -> None:
        self.subject = subject
        self.queue = queue
        self.sid = 0
        self._connection = connection
        self._max_messages = max_messages
        self._mailbox: deque[Msg] = deque()
        self._dropped = 0
        self._error: Exception | None = None
        self._ended = False
        self._arrival = anyio.Event()

    @property
    def pending(self) -> int:
        """Messages in the mailbox."""
        return len(self._mailbox)

    async def receive(self) -> Msg:
        """Wait for the next message. Cancelling loses none.

        Raises:
            SlowConsumer: messages were dropped since the last call.
            PermissionDenied, ServerRefused: the server does not allow this subscription.
            ConnectionClosed, ConnectFailed: the connection ended.
            anyio.EndOfStream: drained, and nothing is left.
        """
        while not self._mailbox:
            if self._error is not None:
                raise self._error

            if self._ended:
                raise anyio.EndOfStream

            self._arrival = anyio.Event()
            await self._arrival.wait()

        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            raise SlowConsumer(self.subject, dropped)

        return self._mailbox.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Msg:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def drain(self) -> None:
        """Ask for no more messages; what the server had already sent can still be read, then the iteration ends.

        Raises:
            ConnectionLost, RequestTimeout: the server did not confirm; the iteration ends all the same.
        """
        self._connection.drop(self.sid, keep=True)
        try:
            await self._connection.flush()
        finally:
            self._connection.drop(self.sid)
            self.end()

    def deliver(self, message: Msg) -> None:
        """Called by the connection's reader for each message."""
        if len(self._mailbox) >= self._max_messages:
            self._dropped += 1
            return

        message._connection = self._connection
        self._mailbox.append(message)
        self._arrival.set()

    def fail(self, error: Exception) -> None:
        """Called by the connection: no message can come any more."""
        self._error = self._error or error
        self._arrival.set()

    def end(self) -> None:
        """Let the iteration end when the mailbox is empty."""
        self._ended = True
        self._arrival.set()
