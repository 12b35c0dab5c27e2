"""A client's state, from one link to the next: never waits but for a link, and for what was sent to arrive."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from enum import Enum, auto
from threading import get_ident
from typing import Any

import anyio

from ..errors import (
    ConnectionClosed,
    ConnectionLost,
    NatsJobsError,
    PermissionDenied,
    RequestTimeout,
    ServerRefused,
    UsageError,
)
from ._commands import message_line
from ._info import updated
from ._link import Link
from ._listener import ConnectionListener
from ._messages import Msg
from ._options import Options
from ._pulse import Pulse
from ._request_mux import OnReply, RequestMux
from ._server_errors import Concern, parse_server_error, readable
from ._servers import ServerPool
from ._statistics import Statistics
from ._subscription_table import INBOX_SID, Entry, SubscriptionTable, ignore, nothing

__all__ = ("Session", "State")


class State(Enum):
    """Where a session is. `on_connected`, `on_disconnected` and `close` are what changes it."""

    CONNECTING = auto()
    CONNECTED = auto()
    RECONNECTING = auto()
    CLOSED = auto()


class Session:
    """The link there is now, the outstanding requests and the subscriptions. `connection.lowlevel` is one.

    Attributes:
        state: `link` is there when it is CONNECTED, and only then.
        info: what the server said of itself; kept while reconnecting.
        failure: why it is CLOSED, when that is an error.
    """

    def __init__(self, pool: ServerPool, options: Options, listener: ConnectionListener) -> None:
        self.options = options
        self.pool = pool
        self.state = State.CONNECTING
        self.link: Link | None = None
        self.info: dict[str, Any] = {}
        self.reconnects = 0
        self.failure: Exception | None = None
        self.pulse = Pulse(listener.on_loop_blocked)
        self.requests = RequestMux(options.inbox_prefix)
        self.subscriptions = SubscriptionTable(
            Entry(self.requests.subject, "", self.requests.deliver, self.requests.deny_inbox)
        )
        # Straight there: it is on the way of every message.
        self.take_message = self.subscriptions.deliver
        self._listener = listener
        self._thread = get_ident()
        self._changed = anyio.Event()
        # Whose counts are not summed up yet: the link, also while it is being left.
        self._counting: Link | None = None
        self._bytes_in = self._bytes_out = self._messages_out = 0
        self._round_trip: float | None = None

    # The link...

    def current_link(self) -> Link:
        """Return the link.

        Raises:
            ConnectionLost: there is none now.
            ConnectionClosed, ConnectFailed: there will be none.
        """
        if self.link is not None:
            return self.link

        if self.state is State.CLOSED:
            raise self._why_closed()

        raise ConnectionLost(str(self.pool), "reconnecting")

    async def wait_link(self, timeout: float = math.inf) -> Link:
        """Wait for a link, at most `timeout` seconds. May be cancelled at any time.

        Raises:
            ConnectionLost: there was none in time.
            ConnectionClosed, ConnectFailed: there will be none.
        """
        self.check_thread()
        with anyio.move_on_after(timeout):
            while self.link is None:
                if self.state is State.CLOSED:
                    raise self._why_closed()

                await self._changed.wait()

            return self.link

        raise ConnectionLost(str(self.pool), f"not reconnected within {timeout:g} s")

    def check_thread(self) -> None:
        """Refuse a call from another thread: what it did would be seen late, in halves, or never.

        Raises:
            UsageError: with the ways to do it.
        """
        if get_ident() != self._thread:
            raise UsageError(
                "this connection belongs to the event loop of another thread; call it there with "
                "anyio.from_thread.run(…), open one in this event loop, or use nats_jobs.sync in plain code"
            )

    def _why_closed(self) -> Exception:
        return copy(self.failure) if self.failure is not None else ConnectionClosed()

    # Publishing and requests...

    def publish_nowait(self, subject: str, reply: str, header_bytes: bytes, data: bytes) -> None:
        """Queue one message without waiting or checking the subject. For protocol replies such as acks.

        The caller bounds how many it sends: nothing holds it back.

        Raises:
            ConnectionLost: there is no link now. Nothing was queued.
            PayloadTooLarge, ServerRefused: nothing was queued, and never can be.
        """
        self.current_link().publish(
            message_line(subject, reply, headers=bool(header_bytes)), data, header_bytes
        )

    def request_nowait(self, subject: str, data: bytes, on_reply: OnReply, header_bytes: bytes = b"") -> str:
        """Queue a request and return its reply subject at once. The subject is not checked.

        `on_reply` is called once, in the reader's task, with the reply or with the reason why there can be
        none; it must return at once and not raise. There is no time limit: `cancel_request` ends the wait.

        Raises:
            ConnectionLost: there is no link now. Nothing was queued and `on_reply` will not be called.
            PayloadTooLarge, ServerRefused, PermissionDenied: likewise, and it never can be.
            UsageError: called from another thread.
        """
        self.check_thread()
        link = self.current_link()
        reply = self.requests.register(subject, on_reply)
        try:
            link.publish(message_line(subject, reply, headers=bool(header_bytes)), data, header_bytes)
        except NatsJobsError:
            self.requests.cancel(reply)
            raise

        return reply

    def cancel_request(self, reply_subject: str) -> None:
        """Take back a request: its `on_reply` will not be called."""
        self.requests.cancel(reply_subject)

    async def flush(self, timeout: float) -> None:
        """As `Connection.flush`."""
        outcome: list[ConnectionLost | None] = []
        answered = anyio.Event()

        def on_pong(error: ConnectionLost | None) -> None:
            outcome.append(error)
            answered.set()

        with anyio.move_on_after(timeout):
            (await self.wait_link()).ping(on_pong)
            await answered.wait()

        if not outcome:
            raise RequestTimeout("PING", timeout)

        if outcome[0] is not None:
            raise outcome[0]

    # Subscriptions...

    def subscribe_nowait(
        self,
        subject: str,
        on_message: Callable[[Msg], None],
        *,
        queue: str = "",
        on_error: Callable[[Exception], None] = ignore,
        on_resubscribed: Callable[[], None] = nothing,
        request_subject: str = "",
        on_drained: Callable[[], None] | None = None,
    ) -> int:
        """Subscribe with a function; return the number for `unsubscribe`.

        Args:
            subject: not checked here.
            on_message: called in the reader's task for each message; it must return at once and not raise:
                what it raises ends the connection and comes out of `connect`.
            queue: the name of a queue group.
            on_error: called when the server refuses the subscription, or the connection ends.
            on_resubscribed: called when it was made again on another link: what the server held for the old one is gone.
            request_subject: where the messages are asked for with `publish_nowait`. When the server refuses
                a publish to it, `on_error` is called, too.
            on_drained: called when `drain` has ended it.
        """
        self.check_thread()
        entry = Entry(subject, queue, on_message, on_error, on_resubscribed, request_subject, on_drained)
        sid = self.subscriptions.add(entry)
        if self.link is not None:
            self.link.subscribe(subject, queue, sid)
        elif self.state is State.CLOSED:
            self.subscriptions.fail(sid, self._why_closed())

        return sid

    def unsubscribe(self, sid: int, *, drain: bool = False) -> None:
        """End a subscription. With `drain`, messages that are already under way still arrive, until this is called without."""
        if self.subscriptions.remove(sid, drain=drain) and self.link is not None:
            self.link.unsubscribe(sid)

    async def drain(self) -> None:
        """As `Connection.drain`."""
        self.check_thread()
        leaving = self.subscriptions.streams()
        for sid, _ in leaving:
            self.unsubscribe(sid, drain=True)

        try:
            await self.flush(self.options.drain_timeout)
        finally:
            for sid, end in leaving:
                self.unsubscribe(sid)
                end()

    async def wind_down(self) -> None:
        """Let what is queued leave, at most `drain_timeout` seconds. Never raises."""
        if self.link is not None:
            try:
                await self.flush(self.options.drain_timeout)
            except NatsJobsError:
                # The link is gone or stuck: what is queued cannot leave, and the connection ends anyhow.
                pass

    # Receipt times...

    @property
    def sent_not_before(self) -> float:
        """A moment on the monotonic clock, not later than the sending of any message that is delivered now.

        It lags by the period of `set_receive_precision` and the round trip, from the first time it was read.
        """
        self.pulse.wanted = True
        return self.pulse.sent_not_before

    def set_receive_precision(self, seconds: float) -> None:
        """Let `sent_not_before` lag by at most twice `seconds` and a round trip. It only ever becomes more precise."""
        self.pulse.wanted = True
        self.pulse.period = min(self.pulse.period, seconds)

    def ensure_ping(self) -> None:
        """See to it that a PONG is on its way, while there is a link."""
        if self.link is not None:
            self.link.feel()

    def statistics(self) -> Statistics:
        """Return the counts so far."""
        link = self._counting
        return Statistics(
            messages_in=self.subscriptions.messages_in,
            messages_out=self._messages_out + (link.messages_out if link else 0),
            bytes_in=self._bytes_in + (link.bytes_in if link else 0),
            bytes_out=self._bytes_out + (link.bytes_out if link else 0),
            reconnects=self.reconnects,
            round_trip=(link.round_trip if link else None) or self._round_trip,
        )

    # What changes the state, called by the loop of `_reconnect` and by the link...

    def _enter(self, state: State, link: Link | None = None) -> None:
        self.state, self.link = state, link
        self._changed.set()
        self._changed = anyio.Event()

    def on_connected(self, link: Link) -> None:
        """Use a new link: everything is subscribed to on it before anything else can be sent."""
        if self.state is not State.CONNECTING:
            self.reconnects += 1

        self._counting = link
        self.info = {}
        self.requests.reset()
        self.pulse.restart()
        self._update_info(link, link.greeting)
        for sid, entry in self.subscriptions.standing():
            link.subscribe(entry.subject, entry.queue, sid)

        self._enter(State.CONNECTED, link)
        self.subscriptions.notify_resubscribed()
        self._listener.on_connected(str(link.server), self.reconnects)

    def leave(self, link: Link) -> None:
        """Send nothing new on a link whose server is about to end; what is under way may still arrive."""
        self._enter(State.RECONNECTING)
        for sid, _ in self.subscriptions.standing():
            if sid != INBOX_SID:
                link.unsubscribe(sid)

    def link_broke(self, link: Link, reason: str) -> None:
        """Fail what waited for an answer: it cannot come any more."""
        if self.link is link:
            self._enter(State.RECONNECTING)

        self._sum_up()
        self.requests.fail_all(ConnectionLost(str(link.server), reason))
        self._listener.on_disconnected(str(link.server), reason)

    def close(self, failure: Exception | None = None) -> None:
        """End for good. Only the first reason counts."""
        if self.state is State.CLOSED:
            return

        link, self.failure = self.link, failure
        self._sum_up()
        self._enter(State.CLOSED)
        if link is not None:
            self.requests.fail_all(ConnectionLost(str(link.server), "closed on this side"))
            link.fail_pings("closed on this side")

        self.subscriptions.fail_all(self._why_closed())

    def _sum_up(self) -> None:
        """Keep what the link has counted."""
        link, self._counting = self._counting, None
        if link is not None:
            self._bytes_in += link.bytes_in
            self._bytes_out += link.bytes_out
            self._messages_out += link.messages_out
            self._round_trip = link.round_trip or self._round_trip

    # What the link brings...

    def take_info(self, link: Link, fields: dict[str, Any]) -> None:
        """Follow what the server says of itself and its cluster (INFO of the client protocol, ADR-40)."""
        self._update_info(link, fields)
        if self.info.get("ldm") and len(self.pool) > 1:
            link.leaving.set()

    def _update_info(self, link: Link, fields: dict[str, Any]) -> None:
        self.info = updated(self.info, fields)
        link.obey(self.info)
        self.pool.discover(fields.get("connect_urls"), link.server)

    def take_error(self, link: Link, text: str) -> None:
        """Fail the subscription or the request that a `-ERR` is about."""
        error, shown = parse_server_error(text), readable(text)
        denied = PermissionDenied(error.subject, shown)
        match error.concern:
            case Concern.SUBSCRIPTION:
                # May come at any time: permissions can be taken away from a subscription that stands.
                for sid in self.subscriptions.matching(error.subject, error.queue):
                    self.subscriptions.fail(sid, denied)
            case Concern.REPLY_SUBJECT:
                self.requests.fail_reply(error.subject, denied)
            case Concern.PUBLISH:
                self.requests.fail(error.subject, denied)
                for sid in self.subscriptions.by_request_subject(error.subject):
                    self.subscriptions.fail(sid, denied)
            case Concern.LAST_SUBSCRIPTION:
                self.subscriptions.fail(link.subscribing, ServerRefused(str(link.server), shown))
            case Concern.OTHER:
                link.last_words = shown
            case Concern.PUBLISH_SUBJECT:
                pass

        self._listener.on_server_error(str(link.server), shown)
