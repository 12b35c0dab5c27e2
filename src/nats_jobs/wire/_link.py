"""One greeted byte stream, from its first frame to its break: a reader, a writer, a keepalive.

Frames that were queued on a link die with it: nothing is replayed on the next one, so no frame can
arrive twice or in halves. Who needs to know whether something arrived asks for a reply.

PINGs are answered in order, so every one has an entry in a book, the keepalive's too. Each SUB is followed
by one: what the server says against a subscription before that PONG is about this SUB.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from .._clock import running_clock
from ..errors import ConnectionLost, ProtocolError, ServerRefused
from . import _commands
from ._handshake import Greeted
from ._info import limit_in
from ._messages import Msg
from ._options import Options
from ._outbox import Outbox
from ._parser import Err, Frame, Info, Ping, Pong
from ._pulse import Pulse

__all__ = ("Link", "LinkOwner", "OnPong")

_RECEIVE = 256 * 1024

# So many times longer than a silent peer, one that talks may owe us a PONG.
_PATIENCE = 6

OnPong = Callable[[ConnectionLost | None], None]


class LinkOwner(Protocol):
    """Told by the link what comes in. All are called in its tasks and must return at once."""

    def take_message(self, message: Msg) -> None: ...

    def take_info(self, link: Link, fields: dict[str, Any]) -> None: ...

    def take_error(self, link: Link, text: str) -> None: ...

    def link_broke(self, link: Link, reason: str) -> None: ...


class _Owed:
    """A PONG that is to come."""

    __slots__ = ("on_pong", "sent_at", "sid")

    def __init__(self, on_pong: OnPong, sid: int, sent_at: float) -> None:
        self.on_pong = on_pong
        self.sid = sid
        self.sent_at = sent_at


def _nobody(error: ConnectionLost | None) -> None:
    pass


class Link:
    """Carries frames both ways until the link breaks. `run` owns its tasks."""

    def __init__(self, greeted: Greeted, options: Options, pulse: Pulse, owner: LinkOwner) -> None:
        self.server = greeted.server
        self.greeting = greeted.info
        self.leaving = anyio.Event()
        self.bytes_in = 0
        self.round_trip: float | None = None
        self.last_words = ""
        self._stream = greeted.stream
        self._parser = greeted.parser
        self._early = greeted.early
        self._options = options
        self._pulse = pulse
        self._owner = owner
        self._clock = running_clock()
        self._outbox = Outbox(greeted.stream, options.pending_size)
        if not greeted.info.get("headers"):
            # It would close the connection without a word (seen on 2.15).
            self._outbox.refuses_headers = ServerRefused(
                str(self.server), "it does not accept headers (no_header_support)"
            )

        # Straight there: they are on the way of every message.
        self.publish = self._outbox.publish
        self.give_way = self._outbox.give_way
        self._owed: deque[_Owed] = deque()
        self._heard = True
        self._reason: str | None = None
        self._group: TaskGroup | None = None

    @property
    def bytes_out(self) -> int:
        return self._outbox.bytes_out

    @property
    def messages_out(self) -> int:
        return self._outbox.messages_out

    # Sending...

    def obey(self, info: dict[str, Any]) -> None:
        """Send no more at a time than the server takes by its INFO."""
        self._outbox.max_payload = limit_in(info)

    def ping(self, on_pong: OnPong = _nobody) -> None:
        """Ask for a PONG. `on_pong` is called once: with None when it came, with an error when the link broke."""
        self._owed.append(_Owed(on_pong, 0, self._clock()))
        self._outbox.write(_commands.PING)

    async def flushed(self) -> None:
        """Wait until the server has taken everything that was sent before, or the link has broken."""
        answered = anyio.Event()
        self.ping(lambda _: answered.set())
        await answered.wait()

    def feel(self) -> None:
        """See to it that a PONG is on its way."""
        if not self._owed:
            self.ping()

    def subscribe(self, subject: str, queue: str, sid: int) -> None:
        self._owed.append(_Owed(_nobody, sid, self._clock()))
        self._outbox.write(_commands.subscribe(subject, queue, sid) + _commands.PING)

    def unsubscribe(self, sid: int) -> None:
        self._outbox.write(_commands.unsubscribe(sid))

    @property
    def subscribing(self) -> int:
        """The number of the subscription that the server is working on; 0 for none."""
        return self._owed[0].sid if self._owed else 0

    # Its life...

    @property
    def reason(self) -> str:
        """Why the link broke."""
        return self._reason or "closed on this side"

    def break_off(self, reason: str) -> None:
        """End `run` soon. Only the first reason counts."""
        if self._reason is not None:
            return

        self._reason = reason
        self._outbox.close()
        if self._group is not None:
            self._group.cancel_scope.cancel(reason)

        self._owner.link_broke(self, reason)
        self.fail_pings(reason)

    def _break_off_by_server(self, reason: str) -> None:
        self.break_off(f"closed by the server: {self.last_words}" if self.last_words else reason)

    def fail_pings(self, reason: str) -> None:
        owed, self._owed = self._owed, deque()
        for entry in owed:
            entry.on_pong(ConnectionLost(str(self.server), reason))

    async def run(self) -> None:
        """Carry frames until the link breaks. Its owner is told why; the stream is closed then."""
        try:
            async with anyio.create_task_group() as self._group:
                if self._reason is not None:
                    self._group.cancel_scope.cancel(self._reason)

                self._group.start_soon(self._read)
                self._group.start_soon(self._write)
                self._group.start_soon(self._keep_alive)
        finally:
            self._outbox.close()
            await self.close()

    async def close(self) -> None:
        """Close the stream at once, without a word."""
        await anyio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        try:
            for frame in self._early:
                self._take_control(frame)

            await self._read_chunks()
        except anyio.EndOfStream:
            self._break_off_by_server("closed by the server")
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError) as error:
            self._break_off_by_server(_cause(error))
        except ProtocolError as error:
            self.break_off(f"protocol error: {error}")

    async def _read_chunks(self) -> None:
        receive, feed, take_message = self._stream.receive, self._parser.feed, self._owner.take_message
        while True:
            chunk = await receive(_RECEIVE)
            self._heard = True
            self.bytes_in += len(chunk)
            for frame in feed(chunk):
                if type(frame) is Msg:
                    take_message(frame)
                else:
                    self._take_control(frame)

    def _take_control(self, frame: Frame) -> None:
        match frame:
            case Ping():
                # Before what is queued: a peer that waits for it may give us up while megabytes pass.
                self._outbox.write_first(_commands.PONG)
            case Pong() if self._owed:
                owed = self._owed.popleft()
                self.round_trip = self._clock() - owed.sent_at
                self._pulse.answered(owed.sent_at)
                owed.on_pong(None)
            case Info(fields):
                self._owner.take_info(self, fields)
            case Err(text):
                self._owner.take_error(self, text)
            case Msg():
                self._owner.take_message(frame)
            case _:
                pass

    async def _write(self) -> None:
        try:
            await self._outbox.run()
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError) as error:
            self._break_off_by_server(_cause(error))

    async def _keep_alive(self) -> None:
        """Ping the peer; break off when nothing comes for too long, or when a send is stuck.

        Any byte is a sign of life: the PONG may be behind megabytes. But not for ever: bytes that are never an
        answer may be those of a message whose length was a lie.

        All is counted in intervals that were seen to pass, not by the clock: a process that was stopped for an
        hour finds its timers due, and must give the peer its chance first.
        """
        interval, most = self._options.ping_interval, self._options.max_outstanding_pings
        silent = stuck = overdue = last_sends = 0
        oldest: _Owed | None = None
        while True:
            await anyio.sleep(interval)
            stuck = stuck + 1 if self._outbox.sending and self._outbox.sends == last_sends else 0
            silent = 0 if self._heard else silent
            owed = self._owed[0] if self._owed else None
            overdue = overdue + 1 if owed is not None and owed is oldest else 0
            oldest = owed
            last_sends, self._heard = self._outbox.sends, False
            if stuck > most:
                self.break_off(f"a send has been stuck for {interval * most:g} s")
            elif silent >= most:
                self.break_off(f"stale: no answer to {silent} pings")
            elif overdue >= most * _PATIENCE:
                self.break_off(f"no answer to a ping for {interval * overdue:g} s, though bytes come")
            else:
                silent += 1
                self.ping()


def _cause(error: BaseException) -> str:
    """Say it with the operating system's words where AnyIO wrapped them."""
    inner = error.__cause__ or error
    return str(inner) or type(inner).__name__
