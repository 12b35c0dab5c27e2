"""What the rest of the library needs of a connection: nothing in here waits for anything but a link.

Users have `Connection`, which adds what is convenient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from anyio.abc import TaskStatus

from ..errors import NatsJobsError
from ._commands import message_line
from ._info import limit_in
from ._interests import Interest, Interests, ignore, nothing
from ._messages import Msg
from ._options import Options
from ._requests import OnReply, Requests
from ._subjects import unique_token
from ._uplink import Uplink
from ._watcher import LinkWatcher

__all__ = ("Plumbing",)


class Plumbing:
    """The link, the books of requests and the table of subscriptions, behind a few plain functions."""

    def __init__(self, urls: Sequence[str], options: Options, watcher: LinkWatcher) -> None:
        self._options = options
        self._requests = Requests(options.inbox_prefix)
        self._interests = Interests(
            Interest(self._requests.subject, "", self._requests.deliver, self._requests.bar)
        )
        self._uplink = Uplink(urls, options, watcher, self._interests, self._requests)

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
        return limit_in(self._uplink.info)

    @property
    def reconnects(self) -> int:
        """How often the link came back. A number that changed means that server-side state of the old link is gone."""
        return self._uplink.reconnects

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses."""
        return f"{self._options.inbox_prefix}.{unique_token()}"

    async def wait_connected(self) -> None:
        """Wait until the link is up.

        Raises:
            ConnectionClosed, ConnectFailed: it never will be.
        """
        await self._uplink.wait()

    # Sending and asking...

    def send(self, subject: str, reply: str, block: bytes, data: bytes) -> None:
        """Queue one message without waiting or checking the subject. For protocol replies such as acks.

        The caller bounds how many it sends: nothing holds it back.

        Raises:
            ConnectionLost: there is no link now. Nothing was queued.
            PayloadTooLarge, ServerRefused: nothing was queued, and never can be.
        """
        self._uplink.require().publish(message_line(subject, reply, headers=bool(block)), data, block)

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
            link.publish(message_line(subject, reply, headers=bool(block)), data, block)
        except NatsJobsError:
            self._requests.forget(reply)
            raise

        return reply

    def forget(self, reply_subject: str) -> None:
        """Take back an `ask`: its `on_reply` will not be called."""
        self._requests.forget(reply_subject)

    # Listening...

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

    # Receipt times...

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

    # Its tasks, for `connect`...

    async def keep_linked(self, *, task_status: TaskStatus[None]) -> None:
        """Connect, and connect again, until cancelled. Raises when no server is left to try."""
        await self._uplink.run(task_status=task_status)

    async def beat(self) -> None:
        """Keep `arrived_after` honest, until cancelled."""
        await self._uplink.beat()
