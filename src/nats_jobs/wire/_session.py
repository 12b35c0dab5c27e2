"""What the rest of the library needs of a connection: nothing in here waits for anything but a link.

Users have `Connection`, which adds what is convenient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.abc import TaskStatus

from ..errors import ConnectionClosed, ConnectionLost, NatsJobsError, RequestTimeout
from ._commands import message_line
from ._interests import Interest, Interests, ignore, nothing
from ._link import Link
from ._listener import ConnectionListener
from ._messages import Msg
from ._options import Options
from ._requests import OnReply, Requests
from ._statistics import Statistics
from ._uplink import Uplink

__all__ = ("Session",)


class Session:
    """The link, the books of requests and the table of subscriptions, behind a few plain functions."""

    def __init__(self, urls: Sequence[str], options: Options, listener: ConnectionListener) -> None:
        self.options = options
        self._requests = Requests(options.inbox_prefix)
        self._interests = Interests(
            Interest(self._requests.subject, "", self._requests.deliver, self._requests.bar)
        )
        self._uplink = Uplink(urls, options, listener, self._interests, self._requests)

    # What there is to know...

    @property
    def link(self) -> Link | None:
        return self._uplink.link

    @property
    def info(self) -> dict[str, Any]:
        return self._uplink.info

    @property
    def reconnects(self) -> int:
        return self._uplink.reconnects

    @property
    def failure(self) -> Exception | None:
        """Why it ended for good, if it did and that is an error."""
        error = self._uplink.closed
        return None if isinstance(error, ConnectionClosed) else error

    async def wait_link(self, timeout: float = math.inf) -> Link:
        """Wait for a link, at most `timeout` seconds.

        Raises:
            ConnectionLost: there was none in time.
            ConnectionClosed, ConnectFailed: there will be none.
        """
        return await self._uplink.wait_for(timeout)

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

    # Sending and asking...

    def publish_nowait(self, subject: str, reply: str, header_bytes: bytes, data: bytes) -> None:
        """Queue one message without waiting or checking the subject. For protocol replies such as acks.

        The caller bounds how many it sends: nothing holds it back.

        Raises:
            ConnectionLost: there is no link now. Nothing was queued.
            PayloadTooLarge, ServerRefused: nothing was queued, and never can be.
        """
        self._uplink.require().publish(
            message_line(subject, reply, headers=bool(header_bytes)), data, header_bytes
        )

    def request_nowait(self, subject: str, data: bytes, on_reply: OnReply, header_bytes: bytes = b"") -> str:
        """Queue a request and return its reply subject at once. The subject is not checked.

        `on_reply` is called once, in the reader's task, with the reply or with why there can be none; it
        must return at once and not raise. There is no time limit: `cancel_request` ends the wait.

        Raises:
            ConnectionLost: there is no link now. Nothing was queued and `on_reply` will not be called.
            PayloadTooLarge, ServerRefused, PermissionDenied: likewise, and it never can be.
        """
        link = self._uplink.require()
        reply = self._requests.open(subject, on_reply)
        try:
            link.publish(message_line(subject, reply, headers=bool(header_bytes)), data, header_bytes)
        except NatsJobsError:
            self._requests.forget(reply)
            raise

        return reply

    def cancel_request(self, reply_subject: str) -> None:
        """Take back a request: its `on_reply` will not be called."""
        self._requests.forget(reply_subject)

    # Listening...

    def subscribe_nowait(
        self,
        subject: str,
        on_message: Callable[[Msg], None],
        *,
        queue: str = "",
        on_error: Callable[[Exception], None] = ignore,
        on_resubscribed: Callable[[], None] = nothing,
        request_subject: str = "",
    ) -> int:
        """Subscribe with a function; return the number for `unsubscribe`.

        `on_message` is called in the reader's task for each message; it must return at once and not raise: what it
        raises ends the connection and comes out of `connect`. `on_error` is called when the server refuses the
        subscription or the connection ends, `on_resubscribed` when it was made again on another link: what the old
        link's server held for it is gone. `request_subject` is where the messages are asked for with `publish_nowait`: when the
        server refuses a publish to that, `on_error` is called, too.
        """
        sid = self._interests.add(
            Interest(subject, queue, on_message, on_error, on_resubscribed, request_subject),
            self._uplink.link,
        )
        if self._uplink.closed is not None:
            self._interests.refuse(sid, self._uplink.closed)

        return sid

    def unsubscribe(self, sid: int, *, drain: bool = False) -> None:
        """Unsubscribe. With `drain`, messages that are already under way still arrive, until this is called without."""
        self._interests.drop(sid, self._uplink.link, keep=drain)

    async def flush(self, timeout: float) -> None:
        """As `Connection.flush`."""
        outcome: list[ConnectionLost | None] = []
        answered = anyio.Event()

        def on_pong(error: ConnectionLost | None) -> None:
            outcome.append(error)
            answered.set()

        with anyio.move_on_after(timeout):
            link = self.link or await self.wait_link()
            link.ping(on_pong)
            await answered.wait()

        if not outcome:
            raise RequestTimeout("PING", timeout)

        if outcome[0] is not None:
            raise outcome[0]

    # Receipt times...

    @property
    def sent_not_before(self) -> float:
        """A moment on the monotonic clock, not later than the sending of any message that is delivered now.

        It lags by `set_receive_precision`'s period and the round trip, from the first time it was read.
        """
        self._uplink.pulse.wanted = True
        return self._uplink.pulse.sent_not_before

    def set_receive_precision(self, period: float) -> None:
        """Let `sent_not_before` lag by at most twice `period` seconds and a round trip. It only ever becomes sharper."""
        self._uplink.pulse.wanted = True
        self._uplink.pulse.period = min(self._uplink.pulse.period, period)

    # Its tasks, for `connect`...

    async def keep_linked(self, *, task_status: TaskStatus[None]) -> None:
        """Connect, and connect again, until cancelled. Raises when no server is left to try."""
        await self._uplink.run(task_status=task_status)

    async def beat(self) -> None:
        """Keep `sent_not_before` honest, until cancelled."""
        await self._uplink.beat()

    async def wind_down(self) -> None:
        """Let what is queued leave, at most `drain_timeout` seconds. Never raises."""
        if self.link is not None:
            try:
                await self.flush(self.options.drain_timeout)
            except NatsJobsError:
                # The link is gone or stuck: what is queued cannot leave, and the connection ends anyhow.
                pass
