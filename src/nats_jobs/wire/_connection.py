"""The connection, as its users see it: publish, subscribe, ask, drain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import get_ident
from typing import Any

import anyio

from ..errors import RequestTimeout
from ._commands import message_line
from ._info import limit_in
from ._messages import HeaderInput, Msg, encode_headers
from ._request_mux import ReplyWaiter, unwrap_reply
from ._session import Session
from ._statistics import Statistics
from ._subjects import (
    check_line,
    check_publish_subject,
    check_queue,
    check_reply,
    check_subscribe_subject,
    publishable,
    unique_token,
)
from ._subscription import Subscription

__all__ = ("Connection",)

_REQUEST_TIMEOUT = 5.0
_FLUSH_TIMEOUT = 10.0
_PUBLISH_TIMEOUT = 10.0
_MAX_MESSAGES = 65536
_MAX_BYTES = 64 * 1024 * 1024


class Connection:
    """A connection to a NATS server that finds its way back when the link breaks.

    Made by `connect`. All methods may be called from any task of the same event loop; from another thread
    they raise `UsageError`.
    """

    def __init__(self, session: Session) -> None:
        self.lowlevel = session
        """For the rest of the library, and for code that builds something similar: functions that never wait."""

        self._options = session.options
        self._thread = get_ident()

    # What there is to know...

    @property
    def connected(self) -> bool:
        """Whether there is a connection to a server now."""
        return self.lowlevel.link is not None

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server says of itself, by the names of the INFO message. Kept while reconnecting."""
        return self.lowlevel.info

    @property
    def max_payload(self) -> int:
        """The most bytes of headers and payload together that the server takes."""
        return limit_in(self.lowlevel.info)

    @property
    def reconnects(self) -> int:
        """How often the connection was made again. When it changes, what the server held for the old one is gone."""
        return self.lowlevel.reconnects

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses."""
        return f"{self._options.inbox_prefix}.{unique_token()}"

    async def wait_connected(self) -> None:
        """Wait until there is a connection to a server. May be cancelled at any time.

        Raises:
            ConnectionClosed, ConnectFailed: there never will be one.
        """
        await self.lowlevel.wait_link()

    def statistics(self) -> Statistics:
        """Return the counts so far."""
        return self.lowlevel.statistics()

    # Publishing...

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        reply: str = "",
        headers: HeaderInput | None = None,
        *,
        timeout: float = _PUBLISH_TIMEOUT,
    ) -> None:
        """Send a message, at most once: it is gone when the link breaks before it left.

        Waits while the link is down (at most `timeout` seconds), and while more than `pending_size` bytes
        are queued. Besides, it gives way to other tasks for every 128 KiB that it queues, and not for each
        message: so a loop of publishing shares the event loop, and is cancelled there. Cancelling it means
        that nothing was sent, or the whole message.

        Raises:
            BadSubject, PayloadTooLarge, ServerRefused: nothing was sent, and never can be.
            ConnectionLost: there was no link for `timeout` seconds; nothing was sent.
            ConnectionClosed, ConnectFailed: the connection has ended.
        """
        if get_ident() != self._thread:
            self.lowlevel.check_thread()

        line = publishable[subject]
        header_bytes = b""
        if reply or headers:
            check_reply(subject, reply)
            header_bytes = encode_headers(headers) if headers else b""
            line = message_line(subject, reply, headers=bool(header_bytes))

        link = self.lowlevel.link or await self.lowlevel.wait_link(timeout)
        if link.publish(line, data, header_bytes):
            await link.give_way()

    # Asking...

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        timeout: float = _REQUEST_TIMEOUT,
        headers: HeaderInput | None = None,
    ) -> Msg:
        """Send a request and wait for its first reply. `timeout` in seconds counts waiting for the link, too.

        Raises:
            NoResponders: nobody listens there.
            RequestTimeout: no reply in time; the outcome is unknown.
            ConnectionLost: the link broke meanwhile; the outcome is unknown.
            PermissionDenied: the server does not let us publish there, or listen for the reply.
            BadSubject, PayloadTooLarge, ServerRefused, ConnectionClosed: nothing was sent.
        """
        check_publish_subject(subject)
        header_bytes = encode_headers(headers) if headers else b""
        waiter = ReplyWaiter()
        reply_subject = ""
        try:
            with anyio.move_on_after(timeout):
                if self.lowlevel.link is None:
                    await self.lowlevel.wait_link()

                reply_subject = self.lowlevel.request_nowait(subject, data, waiter.answer, header_bytes)
                await waiter.answered.wait()
        finally:
            self.lowlevel.cancel_request(reply_subject)

        if waiter.reply is None:
            raise RequestTimeout(subject, timeout)

        answer = unwrap_reply(waiter.reply, subject)
        answer._publisher = self
        return answer

    async def flush(self, timeout: float = _FLUSH_TIMEOUT) -> None:
        """Wait until the server has taken everything that was sent before.

        Raises:
            ConnectionLost: the link broke meanwhile.
            RequestTimeout: no answer within `timeout` seconds.
            ConnectionClosed, ConnectFailed: the connection has ended.
        """
        await self.lowlevel.flush(timeout)

    # Listening...

    @asynccontextmanager
    async def subscribe(
        self,
        subject: str,
        queue: str = "",
        *,
        max_messages: int = _MAX_MESSAGES,
        max_bytes: int = _MAX_BYTES,
    ) -> AsyncIterator[Subscription]:
        """Receive the messages of `subject`, as long as the block lasts.

        The server is told at once, but not waited for: `flush` before somebody else may publish.

        Args:
            subject: may have wildcards.
            queue: with others of the same name, each message goes to one of them.
            max_messages: the size of the mailbox; see `Subscription` for what happens when it is full.
            max_bytes: the same, in bytes of headers and payload.

        Raises:
            BadSubject, UsageError: nothing was sent.
        """
        check_line(check_subscribe_subject(subject), check_queue(queue))
        subscription = Subscription(self.lowlevel, self, subject, queue, max_messages, max_bytes)
        try:
            yield subscription
        finally:
            self.lowlevel.unsubscribe(subscription.sid)
            subscription.end()

    async def drain(self) -> None:
        """End every subscription after what was already sent to it, and wait until all we sent has arrived.

        The connection stays open until its block is left. At most `drain_timeout` seconds. Cancelling it
        ends the subscriptions all the same.

        Raises:
            ConnectionLost, RequestTimeout: the server did not confirm.
        """
        await self.lowlevel.drain()
