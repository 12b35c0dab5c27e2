"""The connection, as its users see it: publish, subscribe, ask, drain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from ..errors import ConnectionLost, NatsJobsError, RequestTimeout
from ._commands import message_line
from ._messages import HeaderInput, Msg, encode_headers
from ._options import Options
from ._plumbing import Plumbing
from ._requests import Waiter, answer_of
from ._statistics import Statistics
from ._subjects import (
    check_line,
    check_publish_subject,
    check_queue,
    check_reply,
    check_subscribe_subject,
    publishable,
)
from ._subscription import Subscription
from ._watcher import LinkWatcher

__all__ = ("Connection",)

_REQUEST_TIMEOUT = 5.0
_FLUSH_TIMEOUT = 10.0
_PUBLISH_TIMEOUT = 10.0
_MAX_MESSAGES = 65536
_MAX_BYTES = 64 * 1024 * 1024


class Connection(Plumbing):
    """A connection to a NATS server that finds its way back when the link breaks.

    Made by `connect`. All methods may be called from any task of the same event loop.
    """

    def __init__(self, urls: Sequence[str], options: Options, watcher: LinkWatcher) -> None:
        super().__init__(urls, options, watcher)
        self._subscriptions: dict[int, Subscription] = {}

    def statistics(self) -> Statistics:
        """Return the counts so far."""
        return Statistics(
            messages_in=self._interests.messages_in,
            messages_out=self._uplink.messages_out,
            bytes_in=self._uplink.bytes_in,
            bytes_out=self._uplink.bytes_out,
            reconnects=self._uplink.reconnects,
            round_trip=self._uplink.round_trip,
        )

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
        line = publishable[subject]
        block = b""
        if reply or headers:
            check_reply(subject, reply)
            block = encode_headers(headers) if headers else b""
            line = message_line(subject, reply, headers=bool(block))

        link = self._uplink.link or await self._uplink.wait_for(timeout)
        if link.publish(line, data, block):
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
        block = encode_headers(headers) if headers else b""
        waiter = Waiter()
        reply_subject = ""
        try:
            with anyio.move_on_after(timeout):
                if self._uplink.link is None:
                    await self._uplink.wait()

                reply_subject = self.ask(subject, data, waiter.answer, block)
                await waiter.answered.wait()
        finally:
            self.forget(reply_subject)

        if waiter.reply is None:
            raise RequestTimeout(subject, timeout)

        answer = answer_of(waiter.reply, subject)
        answer._connection = self
        return answer

    async def flush(self, timeout: float = _FLUSH_TIMEOUT) -> None:
        """Wait until the server has taken everything that was sent before.

        Raises:
            ConnectionLost: the link broke meanwhile.
            RequestTimeout: no answer within `timeout` seconds.
            ConnectionClosed, ConnectFailed: the connection has ended.
        """
        outcome: list[ConnectionLost | None] = []
        answered = anyio.Event()

        def on_pong(error: ConnectionLost | None) -> None:
            outcome.append(error)
            answered.set()

        with anyio.move_on_after(timeout):
            link = self._uplink.link or await self._uplink.wait()
            link.ping(on_pong)
            await answered.wait()

        if not outcome:
            raise RequestTimeout("PING", timeout)

        if outcome[0] is not None:
            raise outcome[0]

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
        subscription = Subscription(self, subject, queue, max_messages, max_bytes)
        sid = self.listen(subject, subscription.deliver, queue=queue, fail=subscription.fail)
        subscription.sid = sid
        self._subscriptions[sid] = subscription
        try:
            yield subscription
        finally:
            self._subscriptions.pop(sid, None)
            self.drop(sid)
            subscription.end()

    async def drain(self) -> None:
        """End every subscription after what was already sent to it, and wait until all we sent has arrived.

        The connection stays open until its block is left. At most `drain_timeout` seconds. Cancelling it
        ends the subscriptions all the same.

        Raises:
            ConnectionLost, RequestTimeout: the server did not confirm.
        """
        leaving, self._subscriptions = self._subscriptions, {}
        for sid in leaving:
            self.drop(sid, keep=True)

        try:
            await self.flush(self._options.drain_timeout)
        finally:
            for sid, subscription in leaving.items():
                self.drop(sid)
                subscription.end()

    async def wind_down(self) -> None:
        """Let what is queued leave, at most `drain_timeout` seconds. Never raises."""
        if self.connected:
            try:
                await self.flush(self._options.drain_timeout)
            except NatsJobsError:
                # The link is gone or stuck: what is queued cannot leave, and the connection ends anyhow.
                pass
