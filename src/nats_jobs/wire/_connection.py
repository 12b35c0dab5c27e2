"""The connection: one link after the other, and what outlives them (subscriptions, the request books).

Task tree, inside the group of `connect`::

    keep_linked          runs a link until it breaks, then connects to the next server
      └─ Link.run        reader, writer, keepalive
    pulse                honest receipt times
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Unpack

import anyio
from anyio.abc import TaskStatus

from .._groups import outliving_group, unwrapped
from ..errors import (
    AuthorizationFailed,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    MissingExtra,
    NatsJobsError,
    NoResponders,
    PayloadTooLarge,
    PermissionDenied,
    RequestTimeout,
    ServerRefused,
    UsageError,
)
from . import _commands
from ._handshake import greet
from ._link import Link
from ._messages import HeaderInput, Msg, encode_headers
from ._options import ConnectOptions, Options, server_urls
from ._parser import Err, Frame, Info, Ping, Pong
from ._pulse import Pulse
from ._requests import OnReply, Reply, Requests
from ._servers import ServerPool
from ._subjects import check_publish_subject, check_queue, check_subscribe_subject, unique_token
from ._subscription import Subscription

__all__ = ("Connection", "LinkWatcher", "Statistics", "connect")

_REQUEST_TIMEOUT = 5.0
_FLUSH_TIMEOUT = 10.0
_MAX_MESSAGES = 65536


class LinkWatcher(Protocol):
    """Told about the link, in the connection's tasks; must return at once."""

    def link_up(self, server: str, reconnects: int) -> None: ...

    def link_down(self, server: str, why: str) -> None: ...

    def server_error(self, server: str, text: str) -> None: ...

    def loop_held(self, seconds: float) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts since the connection was opened. `round_trip` is that of the last flush, in seconds."""

    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    reconnects: int
    round_trip: float | None


def _ignore(error: Exception) -> None:
    pass


def _nothing() -> None:
    pass


@dataclass
class _Interest:
    subject: str
    queue: str
    sink: Callable[[Msg], None]
    fail: Callable[[Exception], None] = _ignore
    renewed: Callable[[], None] = _nothing


class Connection:
    """A connection to a NATS server that finds its way back when the link breaks.

    Made by `connect`. All methods may be called from any task of the same event loop.
    """

    def __init__(self, urls: Sequence[str], options: Options, watcher: LinkWatcher | None = None) -> None:
        self._options = options
        self._pool = ServerPool(urls, options)
        self._watcher = watcher
        self._pulse = Pulse(watcher.loop_held if watcher else None)
        self._requests = Requests(options.inbox_prefix)
        # Numbers are never used twice, so a late message for an old one cannot be taken for a new one's.
        self._last_sid = 1
        self._interests = {1: _Interest(self._requests.subject, "", self._requests.deliver)}
        self._link: Link | None = None
        self._linked = anyio.Event()
        self._closed: Exception | None = None
        self._pongs: list[Callable[[ConnectionLost | None], None]] = []
        self._messages_in = self._messages_out = 0
        self._bytes_in = self._bytes_out = 0
        self._reconnects = 0
        self._round_trip: float | None = None
        self.server_info: dict[str, Any] = {}

    @property
    def connected(self) -> bool:
        """Whether the link is up now."""
        return self._link is not None

    @property
    def max_payload(self) -> int:
        """Most bytes of headers and payload together that the server takes."""
        return int(self.server_info.get("max_payload", 1024 * 1024))

    @property
    def arrived_after(self) -> float:
        """A moment on the monotonic clock, not later than the arrival of any message that is delivered now."""
        return self._pulse.arrived_after

    @property
    def reconnects(self) -> int:
        """How often the link came back. A number that changed means that server-side state of the old link is gone."""
        return self._reconnects

    def sharpen_pulse(self, period: float) -> None:
        """Let `arrived_after` lag by at most twice `period` seconds. It only ever becomes sharper."""
        self._pulse.period = min(self._pulse.period, period)

    def statistics(self) -> Statistics:
        """Return the counts so far."""
        link = self._link
        return Statistics(
            messages_in=self._messages_in,
            messages_out=self._messages_out,
            bytes_in=self._bytes_in + (link.bytes_in if link else 0),
            bytes_out=self._bytes_out + (link.bytes_out if link else 0),
            reconnects=self._reconnects,
            round_trip=self._round_trip,
        )

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses."""
        return f"{self._options.inbox_prefix}.{unique_token()}"

    # Publishing...

    async def publish(
        self, subject: str, data: bytes = b"", reply: str = "", headers: HeaderInput | None = None
    ) -> None:
        """Send a message, at most once: it is gone when the link breaks before it left.

        Waits while the link is down or its send buffer is full; otherwise it does not give way to other
        tasks. Cancelling it before it returns means that nothing was sent, or the whole message.

        Raises:
            BadSubject, PayloadTooLarge: nothing was sent.
            ConnectionClosed, ConnectFailed: the connection has ended.
        """
        check_publish_subject(subject)
        if reply:
            check_publish_subject(reply)

        block = encode_headers(headers) if headers else b""
        link = self._link or await self._wait_linked()
        self._put(link, subject, reply, block, data)
        if link.crowded:
            await link.wait_room()

    def send(self, subject: str, reply: str, block: bytes, data: bytes) -> None:
        """Queue one message without waiting or checking the subject. For protocol replies such as acks.

        Raises:
            ConnectionLost: there is no link now. Nothing was queued.
            PayloadTooLarge: nothing was queued.
        """
        self._put(self._require_link(), subject, reply, block, data)

    def ask(self, subject: str, data: bytes, on_reply: OnReply, block: bytes = b"") -> str:
        """Queue a request and return its reply subject at once. The subject is not checked.

        `on_reply` is called once, in the reader's task, with the reply or with why there can be none; it
        must return at once and not raise. There is no time limit: `forget` ends the wait.

        Raises:
            ConnectionLost: there is no link now. Nothing was queued and `on_reply` will not be called.
            PayloadTooLarge: nothing was queued.
        """
        link = self._require_link()
        reply = self._requests.open(subject, on_reply)
        try:
            self._put(link, subject, reply, block, data)
        except PayloadTooLarge:
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
            PermissionDenied: the server does not let us publish there.
            BadSubject, PayloadTooLarge, ConnectionClosed: nothing was sent.
        """
        check_publish_subject(subject)
        block = encode_headers(headers) if headers else b""
        waiter = _Waiter()
        reply_subject = ""
        try:
            with anyio.move_on_after(timeout):
                if self._link is None:
                    await self._wait_linked()

                reply_subject = self.ask(subject, data, waiter.answer, block)
                await waiter.answered.wait()
        finally:
            self.forget(reply_subject)

        if waiter.reply is None:
            raise RequestTimeout(subject, timeout)

        return answer_of(waiter.reply, subject)

    async def flush(self, timeout: float = _FLUSH_TIMEOUT) -> None:
        """Wait until the server has taken everything that was sent before.

        Raises:
            ConnectionLost: the link broke meanwhile.
            RequestTimeout: no answer within `timeout` seconds.
        """
        outcome: list[ConnectionLost | None] = []
        answered = anyio.Event()

        def on_pong(error: ConnectionLost | None) -> None:
            outcome.append(error)
            answered.set()

        with anyio.move_on_after(timeout):
            link = self._link or await self._wait_linked()
            started = anyio.current_time()
            self._pongs.append(on_pong)
            link.write(_commands.PING)
            await answered.wait()

        if not outcome:
            raise RequestTimeout("PING", timeout)

        if outcome[0] is not None:
            raise outcome[0]

        self._round_trip = anyio.current_time() - started

    def _require_link(self) -> Link:
        if self._link is None:
            raise self._closed or ConnectionLost(str(self._pool), "reconnecting")

        return self._link

    def _put(self, link: Link, subject: str, reply: str, block: bytes, data: bytes) -> None:
        size = len(block) + len(data)
        if size > self.max_payload:
            raise PayloadTooLarge(subject, size, self.max_payload)

        self._messages_out += 1
        link.write(_commands.publish(subject, reply, block, data))

    async def wait_connected(self) -> None:
        """Wait until the link is up.

        Raises:
            ConnectionClosed, ConnectFailed: it never will be.
        """
        await self._wait_linked()

    async def _wait_linked(self) -> Link:
        while self._link is None:
            if self._closed is not None:
                raise self._closed

            await self._linked.wait()

        return self._link

    # Subscribing...

    @asynccontextmanager
    async def subscribe(
        self, subject: str, queue: str = "", *, max_messages: int = _MAX_MESSAGES
    ) -> AsyncIterator[Subscription]:
        """Receive the messages of `subject`, as long as the block lasts.

        Args:
            subject: may have wildcards.
            queue: with others of the same name, each message goes to one of them.
            max_messages: the size of the mailbox; see `Subscription` for what happens when it is full.

        Raises:
            BadSubject: nothing was sent.
        """
        subscription = Subscription(self, check_subscribe_subject(subject), check_queue(queue), max_messages)
        subscription.sid = self.listen(subject, subscription.deliver, queue=queue, fail=subscription.fail)
        try:
            yield subscription
        finally:
            self.drop(subscription.sid)

    def listen(
        self,
        subject: str,
        sink: Callable[[Msg], None],
        *,
        queue: str = "",
        fail: Callable[[Exception], None] = _ignore,
        renewed: Callable[[], None] = _nothing,
    ) -> int:
        """Subscribe with a function; return the number to `drop`. For the library's own use.

        `sink` is called in the reader's task for each message; it must return at once and not raise.
        `fail` is called when the server refuses the subscription or the connection ends, `renewed` when it
        was made again on another link: what the old link's server held for it is gone.
        """
        self._last_sid += 1
        sid = self._last_sid
        self._interests[sid] = _Interest(subject, queue, sink, fail, renewed)
        if self._link is not None:
            self._link.write(_commands.subscribe(subject, queue, sid))

        return sid

    def drop(self, sid: int, *, keep: bool = False) -> None:
        """Unsubscribe. With `keep`, messages that are already under way still reach the sink."""
        known = sid in self._interests
        if known and self._link is not None:
            self._link.write(_commands.unsubscribe(sid))

        if not keep:
            self._interests.pop(sid, None)

    async def drain(self) -> None:
        """End every subscription after what was already sent to it, and wait until all we sent has arrived.

        The connection stays open until its block is left. At most `drain_timeout` seconds.

        Raises:
            ConnectionLost, RequestTimeout: the server did not confirm.
        """
        subscriptions = [
            (sid, interest.sink.__self__)
            for sid, interest in self._interests.items()
            if isinstance(getattr(interest.sink, "__self__", None), Subscription)
        ]
        for sid, _ in subscriptions:
            self.drop(sid, keep=True)

        try:
            await self.flush(self._options.drain_timeout)
        finally:
            for sid, subscription in subscriptions:
                self.drop(sid)
                subscription.end()

    # What the link brings...

    def _handle(self, frame: Frame) -> None:
        if type(frame) is Msg:
            self._messages_in += 1
            interest = self._interests.get(frame.sid)
            if interest is not None:
                interest.sink(frame)
        else:
            self._handle_control(frame)

    def _handle_control(self, frame: Frame) -> None:
        link = self._link
        assert link is not None
        match frame:
            case Ping():
                link.write(_commands.PONG)
            case Pong():
                link.pong_received()
                if self._pongs:
                    self._pongs.pop(0)(None)
            case Info(fields):
                self._take_info(link, fields)
            case Err(text):
                self._take_error(link, text)
            case _:
                pass

    def _take_info(self, link: Link, fields: dict[str, Any]) -> None:
        """Follow what the server says of itself and its cluster (NATS.md 1.1, 1.8)."""
        self.server_info = self.server_info | fields
        if "connect_urls" in fields:
            self._pool.discover(fields["connect_urls"], link.server)

        if fields.get("ldm") and len(self._pool) > 1:
            link.break_off("the server is in lame duck mode")

    def _take_error(self, link: Link, text: str) -> None:
        """Report; fail what it is about. Whether the link survives is shown by the socket (NATS.md 1.4)."""
        if self._watcher is not None:
            self._watcher.server_error(str(link.server), text)

        lowered = text.lower()
        subject = text.split('"')[1] if text.count('"') >= 2 else ""
        if lowered.startswith("permissions violation for subscription"):
            self._fail_interests(subject, PermissionDenied(subject, text))
        elif lowered.startswith("permissions violation for publish"):
            self._requests.refuse(subject, PermissionDenied(subject, text))
        elif lowered.startswith(("invalid subject", "maximum subscriptions exceeded")):
            # The text does not say which one; the newest is the one just asked for.
            self._interests[self._last_sid].fail(ServerRefused(str(link.server), text))

    def _fail_interests(self, subject: str, error: PermissionDenied) -> None:
        for interest in list(self._interests.values()):
            if interest.subject == subject:
                interest.fail(error)

    # One link after the other...

    async def beat(self) -> None:
        """Keep `arrived_after` honest, until cancelled."""
        await self._pulse.beat()

    async def keep_linked(self, *, task_status: TaskStatus[None]) -> None:
        """Connect, and connect again, until cancelled.

        Raises:
            ConnectFailed, AuthorizationFailed: no server is left to try. Raised through `task_status` the first time.
        """
        try:
            link = await self._dial(first=True)
            task_status.started()
            while True:
                why = await link.run()
                self._link_down(link, why)
                if not self._options.allow_reconnect:
                    raise ConnectionLost(str(link.server), why)

                link = await self._dial(first=False)
                self._reconnects += 1
                self._link_up(link)
        except NatsJobsError as error:
            self._end(error)
            raise
        finally:
            self._end(ConnectionClosed())

    async def _dial(self, *, first: bool) -> Link:
        """Try one server after the other. The first time, one round; later until one answers or all were given up."""
        failures: dict[str, Exception] = {}
        while True:
            turn = self._pool.next()
            if turn is None or (first and turn[1] > 0):
                raise _none_left(failures)

            server, wait = turn
            await anyio.sleep(wait)
            try:
                greeted = await greet(server, self._options)
            except AuthorizationFailed as error:
                self._pool.failed(server, error.text)
                failures[str(server)] = error
            except (OSError, NatsJobsError) as error:
                if first and isinstance(error, UsageError | MissingExtra):
                    # Later it may be a file that is just being renewed.
                    raise

                self._pool.failed(server)
                failures[str(server)] = error
            else:
                self._pool.connected(server)
                # Servers before 2.11 say it here only, unless it changes.
                self._pool.discover(greeted.info.get("connect_urls"), server)
                link = Link(greeted, self._options, self._pulse, self._handle)
                self.server_info = greeted.info
                if first:
                    self._link_up(link)

                return link

    def _link_up(self, link: Link) -> None:
        self._link = link
        self._pulse.restart()
        for sid, interest in self._interests.items():
            link.write(_commands.subscribe(interest.subject, interest.queue, sid))

        self._linked.set()
        for interest in list(self._interests.values()):
            interest.renewed()

        if self._watcher is not None:
            self._watcher.link_up(str(link.server), self._reconnects)

    def _link_down(self, link: Link, why: str) -> None:
        self._link = None
        self._linked = anyio.Event()
        self._bytes_in += link.bytes_in
        self._bytes_out += link.bytes_out
        self._fail_waiting(ConnectionLost(str(link.server), why))
        if self._watcher is not None:
            self._watcher.link_down(str(link.server), why)

    def _fail_waiting(self, error: ConnectionLost) -> None:
        pongs, self._pongs = self._pongs, []
        for on_pong in pongs:
            on_pong(error)

        self._requests.fail_all(error)

    def _end(self, error: Exception) -> None:
        """Nothing can come any more: everybody who waits is told why."""
        if self._closed is not None:
            return

        self._closed = error
        if self._link is not None:
            self._link = None
            self._fail_waiting(ConnectionLost(str(self._pool), "closed on this side"))

        self._linked.set()
        for interest in self._interests.values():
            interest.fail(error)

    async def wind_down(self) -> None:
        """Let what is queued leave, at most `drain_timeout` seconds. Never raises."""
        if self._link is not None:
            try:
                await self.flush(self._options.drain_timeout)
            except NatsJobsError:
                # The link is gone or stuck: what is queued cannot leave, and the connection ends anyhow.
                pass


class _Waiter:
    __slots__ = ("answered", "reply")

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.reply: Reply | None = None

    def answer(self, reply: Reply) -> None:
        self.reply = reply
        self.answered.set()


def answer_of(reply: Reply, subject: str) -> Msg:
    """Return the message, or raise what it stands for."""
    if not isinstance(reply, Msg):
        raise reply

    if not reply.data and reply.status == 503:
        raise NoResponders(subject)

    return reply


def _none_left(failures: dict[str, Exception]) -> NatsJobsError:
    """Say why no server is left to try: what each of them said last."""
    last = next(reversed(failures.values()), None)
    if isinstance(last, AuthorizationFailed) and all(
        isinstance(error, AuthorizationFailed) for error in failures.values()
    ):
        return last

    return ConnectFailed(tuple((server, _reason(error)) for server, error in failures.items()))


def _reason(error: Exception) -> str:
    # These two would name the server once more.
    return error.text if isinstance(error, AuthorizationFailed | ServerRefused) else str(error)


@asynccontextmanager
async def connect(
    servers: str | Sequence[str] | None = None,
    *,
    watcher: LinkWatcher | None = None,
    **options: Unpack[ConnectOptions],
) -> AsyncIterator[Connection]:
    """Connect to a NATS server; use the connection inside the block.

    Its tasks live in the block. Leaving it sends what is queued (at most `drain_timeout` seconds, also when
    the block is cancelled) and closes the socket. A broken link is mended in the background; when no server
    is left to try, the block is cancelled and `ConnectFailed` raised out of it.

    Args:
        servers: URL or list of URLs; default `$NATS_URL`, else nats://127.0.0.1:4222.
        watcher: told when the link comes and goes.
        **options: see `Options`.

    Raises:
        UsageError: a URL or an option that cannot work.
        ConnectFailed: no server answered; each was tried once.
        AuthorizationFailed: the server does not accept who we are.
    """
    built = Options.build(options)
    connection = Connection(server_urls(servers), built, watcher)
    with unwrapped():
        # The tasks outlive a cancellation of the block until it is left: those who clean up need the link.
        async with outliving_group("the connection's block was left") as group:
            await group.start(connection.keep_linked)
            group.start_soon(connection.beat)
            try:
                yield connection
            finally:
                with anyio.move_on_after(built.drain_timeout + 1, shield=True):
                    await connection.wind_down()
