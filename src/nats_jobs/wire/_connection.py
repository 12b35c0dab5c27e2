"""The connection, as its users see it: publish, subscribe, ask, drain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskStatus

from ..errors import ConnectionLost, NatsJobsError, PayloadTooLarge, RequestTimeout, ServerRefused
from . import _commands
from ._interests import Interest, Interests, ignore, nothing
from ._link import Link
from ._messages import HeaderInput, Msg, encode_headers
from ._options import Options
from ._requests import OnReply, Requests, Waiter, answer_of
from ._statistics import Statistics
from ._subjects import check_line, check_publish_subject, check_queue, check_subscribe_subject, unique_token
from ._subscription import Subscription
from ._uplink import Uplink
from ._watcher import LinkWatcher

__all__ = ("Connection",)

_REQUEST_TIMEOUT = 5.0
_FLUSH_TIMEOUT = 10.0
_PUBLISH_TIMEOUT = 10.0
_MAX_MESSAGES = 65536
_MAX_BYTES = 64 * 1024 * 1024


class Connection:
    """A connection to a NATS server that finds its way back when the link breaks.

    Made by `connect`. All methods may be called from any task of the same event loop.
    """

    def __init__(self, urls: Sequence[str], options: Options, watcher: LinkWatcher) -> None:
        self._options = options
        self._requests = Requests(options.inbox_prefix)
        self._interests = Interests(
            Interest(self._requests.subject, "", self._requests.deliver, self._requests.bar)
        )
        self._uplink = Uplink(urls, options, watcher, self._interests, self._requests)
        self._subscriptions: dict[int, Subscription] = {}
        self._messages_out = 0

    # What there is to know...

    @property
    def connected(self) -> bool:
        """Whether the link is up now."""
        return self._uplink.link is not None

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server says of itself, by the names of the INFO message. Kept while the link is down."""
        return self._uplink.info

    @property
    def max_payload(self) -> int:
        """Most bytes of headers and payload together that the server takes."""
        return self._uplink.max_payload

    @property
    def reconnects(self) -> int:
        """How often the link came back. A number that changed means that server-side state of the old link is gone."""
        return self._uplink.reconnects

    @property
    def arrived_after(self) -> float:
        """A moment on the monotonic clock, not later than the sending of any message that is delivered now.

        It lags by `sharpen_pulse`'s period and the round trip, from the first time it was read.
        """
        self._uplink.pulse.wanted = True
        return self._uplink.pulse.arrived_after

    def sharpen_pulse(self, period: float) -> None:
        """Let `arrived_after` lag by at most twice `period` seconds and a round trip. It only ever becomes sharper."""
        self._uplink.pulse.wanted = True
        self._uplink.pulse.period = min(self._uplink.pulse.period, period)

    def statistics(self) -> Statistics:
        """Return the counts so far."""
        return Statistics(
            messages_in=self._interests.messages_in,
            messages_out=self._messages_out,
            bytes_in=self._uplink.bytes_in,
            bytes_out=self._uplink.bytes_out,
            reconnects=self._uplink.reconnects,
            round_trip=self._uplink.round_trip,
        )

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses."""
        return f"{self._options.inbox_prefix}.{unique_token()}"

    async def wait_connected(self) -> None:
        """Wait until the link is up.

        Raises:
            ConnectionClosed, ConnectFailed: it never will be.
        """
        await self._uplink.wait()

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
        are queued. Besides, it gives way to other tasks for every 64 KiB that it queues, and not for each
        message: so a loop of publishing shares the event loop, and is cancelled there. Cancelling it means
        that nothing was sent, or the whole message.

        Raises:
            BadSubject, PayloadTooLarge, ServerRefused: nothing was sent, and never can be.
            ConnectionLost: there was no link for `timeout` seconds; nothing was sent.
            ConnectionClosed, ConnectFailed: the connection has ended.
        """
        check_publish_subject(subject)
        if reply:
            check_publish_subject(reply)
            check_line(subject, reply)

        block = encode_headers(headers) if headers else b""
        link = self._uplink.link or await self._uplink.wait_for(timeout)
        if self._put(link, subject, reply, block, data):
            await link.give_way()

    def send(self, subject: str, reply: str, block: bytes, data: bytes) -> None:
        """Queue one message without waiting or checking the subject. For protocol replies such as acks.

        The caller bounds how many it sends: nothing holds it back.

        Raises:
            ConnectionLost: there is no link now. Nothing was queued.
            PayloadTooLarge, ServerRefused: nothing was queued, and never can be.
        """
        self._put(self._uplink.require(), subject, reply, block, data)

    def _put(self, link: Link, subject: str, reply: str, block: bytes, data: bytes) -> bool:
        size = len(block) + len(data)
        if size > self._uplink.max_payload:
            raise PayloadTooLarge(subject, size, self._uplink.max_payload)

        if block and not link.takes_headers:
            # It would close the connection without a word (NATS.md 1.4).
            raise ServerRefused(str(link.server), "it takes no headers (no_header_support)")

        self._messages_out += 1
        return link.write(_commands.publish(subject, reply, block, data))

    # Asking...

    def ask(self, subject: str, data: bytes, on_reply: OnReply, block: bytes = b"") -> str:
        """Queue a request and return its reply subject at once. The subject is not checked.

        `on_reply` is called once, in the reader's task, with the reply or with why there can be none; it
        must return at once and not raise. There is no time limit: `forget` ends the wait.

        Raises:
            ConnectionLost: there is no link now. Nothing was queued and `on_reply` will not be called.
            PayloadTooLarge, ServerRefused, PermissionDenied: likewise, and it never can be.
        """
        link = self._uplink.require()
        reply = self._requests.open(subject, on_reply)
        try:
            self._put(link, subject, reply, block, data)
        except NatsJobsError:
            self._requests.forget(reply)
            raise

        return reply

    def forget(self, reply_subject: str) -> None:
        """Take back an `ask`: its `on_reply` will not be called."""
        self._requests.forget(reply_subject)

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

    def listen(
        self,
        subject: str,
        sink: Callable[[Msg], None],
        *,
        queue: str = "",
        fail: Callable[[Exception], None] = ignore,
        renewed: Callable[[], None] = nothing,
        asks: str = "",
    ) -> int:
        """Subscribe with a function; return the number to `drop`. For the library's own use.

        `sink` is called in the reader's task for each message; it must return at once and not raise: what it
        raises ends the connection and comes out of `connect`. `fail` is called when the server refuses the
        subscription or the connection ends, `renewed` when it was made again on another link: what the old
        link's server held for it is gone. `asks` is where the messages are asked for with `send`: when the
        server refuses a publish to that, `fail` is called, too.
        """
        sid = self._interests.add(Interest(subject, queue, sink, fail, renewed, asks), self._uplink.link)
        if self._uplink.closed is not None:
            self._interests.refuse(sid, self._uplink.closed)

        return sid

    def drop(self, sid: int, *, keep: bool = False) -> None:
        """Unsubscribe. With `keep`, messages that are already under way still reach the sink, until dropped without."""
        self._interests.drop(sid, self._uplink.link, keep=keep)

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

    # Its tasks, for `connect`...

    async def keep_linked(self, *, task_status: TaskStatus[None]) -> None:
        """Connect, and connect again, until cancelled. Raises when no server is left to try."""
        await self._uplink.run(task_status=task_status)

    async def beat(self) -> None:
        """Keep `arrived_after` honest, until cancelled."""
        await self._uplink.beat()

    async def wind_down(self) -> None:
        """Let what is queued leave, at most `drain_timeout` seconds. Never raises."""
        if self.connected:
            try:
                await self.flush(self._options.drain_timeout)
            except NatsJobsError:
                # The link is gone or stuck: what is queued cannot leave, and the connection ends anyhow.
                pass
