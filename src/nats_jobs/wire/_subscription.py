"""One subscription as a stream of messages, with a bounded mailbox."""

from __future__ import annotations

from typing import Self

import anyio

from .._mailbox import Mailbox
from ..errors import SlowConsumer, UsageError
from ._messages import Msg, Publisher
from ._session import Session

__all__ = ("Subscription",)

_FLUSH_TIMEOUT = 10.0


class Subscription:
    """Messages of one subject, in order: `async for message in subscription`.

    The mailbox holds `max_messages`, and `max_bytes` of headers and payload. A message that finds no room is
    dropped, and the next `receive` raises `SlowConsumer` once, with the count; what is in the mailbox stays
    readable. The connection's reader never waits for anyone.

    It stays alive across reconnects. Messages published while the link was down are not seen, as with
    every core NATS subscription. The iteration ends when the subscription is drained and empty. Several
    tasks may receive; each message goes to one of them.
    """

    def __init__(
        self,
        session: Session,
        publisher: Publisher,
        subject: str,
        queue: str,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        if max_messages < 1 or max_bytes < 1:
            raise UsageError(
                f"subscribe({subject!r}, max_messages={max_messages}, max_bytes={max_bytes}): both are 1 or more"
            )

        self.subject = subject
        self.queue = queue
        self._session = session
        self._publisher = publisher
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._mailbox: Mailbox[Msg] = Mailbox()
        self._bytes = 0
        self._dropped = 0
        self.sid = session.subscribe_nowait(
            subject, self.deliver, queue=queue, on_error=self.fail, on_drained=self.end
        )

    @property
    def pending(self) -> int:
        """Messages in the mailbox."""
        return len(self._mailbox)

    @property
    def pending_bytes(self) -> int:
        """Bytes of headers and payload in the mailbox."""
        return self._bytes

    async def receive(self) -> Msg:
        """Wait for the next message. Cancelling loses none.

        While the mailbox is not empty, other tasks get a turn for every 64th message only.

        Raises:
            SlowConsumer: messages were dropped since the last call.
            PermissionDenied, ServerRefused: the server does not allow this subscription.
            ConnectionClosed, ConnectFailed: the connection ended.
            anyio.EndOfStream: drained, and nothing is left.
        """
        await self._mailbox.wait()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            raise SlowConsumer(self.subject, dropped)

        message = self._mailbox.take()
        self._bytes -= len(message.data) + len(message._block)
        return message

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
        self._session.unsubscribe(self.sid, drain=True)
        try:
            await self._session.flush(_FLUSH_TIMEOUT)
        finally:
            self._session.unsubscribe(self.sid)
            self.end()

    def deliver(self, message: Msg) -> None:
        """Called by the connection's reader for each message."""
        size = self._bytes + len(message.data) + len(message._block)
        if len(self._mailbox) >= self._max_messages or (size > self._max_bytes and self._mailbox):
            self._dropped += 1
            return

        message._publisher = self._publisher
        self._bytes = size
        self._mailbox.put(message)

    def fail(self, error: Exception) -> None:
        """Called by the connection: no message can come any more."""
        self._mailbox.fail(error)

    def end(self) -> None:
        """Let the iteration end when the mailbox is empty."""
        self._mailbox.end()
