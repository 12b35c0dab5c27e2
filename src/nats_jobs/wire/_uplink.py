"""One link after the other, and the orderly passage from each to the next.

Task tree, inside the group of `connect`::

    Uplink.run            runs a link until it breaks, then connects to the next server
      ├─ Link.run         reader, writer, keepalive
      └─ move away        when the server says it is about to end: connects to another one first
    Uplink.beat           honest receipt times
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import anyio
from anyio.abc import TaskStatus

from ..errors import ConnectionClosed, ConnectionLost, NatsJobsError
from ._complaints import Complaints
from ._dial import dial
from ._info import updated
from ._interests import Interests
from ._link import Link
from ._listener import ConnectionListener
from ._options import Options
from ._pulse import Pulse
from ._requests import Requests
from ._servers import ServerPool

__all__ = ("Uplink",)

# What requests that are under way get when the server is left in peace; it gives us some 10 s (lame_duck_grace_period).
_HANDOVER = 1.0


class Uplink:
    """The way to a server: `link` while there is one, and what to do when there is none."""

    def __init__(
        self,
        urls: Sequence[str],
        options: Options,
        listener: ConnectionListener,
        interests: Interests,
        requests: Requests,
    ) -> None:
        self.link: Link | None = None
        self.info: dict[str, Any] = {}
        self.reconnects = 0
        self.pulse = Pulse(listener.on_loop_blocked)
        self._pool = ServerPool(urls, options)
        self._options = options
        self._listener = listener
        self._interests = interests
        self._requests = requests
        self._complaints = Complaints(interests, requests)
        self.take_message = interests.deliver
        self._successor: Link | None = None
        # Whose counts are not summed up yet: the link, also while it is being left.
        self._counting: Link | None = None
        self._linked = anyio.Event()
        self.closed: Exception | None = None
        self._bytes_in = self._bytes_out = self._messages_out = 0
        self._round_trip: float | None = None

    @property
    def bytes_in(self) -> int:
        return self._bytes_in + (self._counting.bytes_in if self._counting else 0)

    @property
    def bytes_out(self) -> int:
        return self._bytes_out + (self._counting.bytes_out if self._counting else 0)

    @property
    def messages_out(self) -> int:
        return self._messages_out + (self._counting.messages_out if self._counting else 0)

    @property
    def round_trip(self) -> float | None:
        link = self._counting
        return self._round_trip if link is None or link.round_trip is None else link.round_trip

    def require(self) -> Link:
        """Return the link.

        Raises:
            ConnectionLost: there is none now.
            ConnectionClosed, ConnectFailed: there will be none.
        """
        if self.link is None:
            raise copy(self.closed) if self.closed else ConnectionLost(str(self._pool), "reconnecting")

        return self.link

    async def wait(self) -> Link:
        """Wait for a link.

        Raises:
            ConnectionClosed, ConnectFailed: there will be none.
        """
        while self.link is None:
            if self.closed is not None:
                raise copy(self.closed)

            await self._linked.wait()

        return self.link

    async def wait_for(self, seconds: float) -> Link:
        """Wait for a link, not longer than that.

        Raises:
            ConnectionLost: there was none in time.
            ConnectionClosed, ConnectFailed: there will be none.
        """
        with anyio.move_on_after(seconds):
            return await self.wait()

        raise ConnectionLost(str(self._pool), f"no link for {seconds:g} s")

    # Its tasks...

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Connect, and connect again, until cancelled.

        Raises:
            ConnectFailed, AuthorizationFailed: no server is left to try. Raised through `task_status` the first time.
            ConnectionLost: the link broke, with `allow_reconnect=False`.
        """
        try:
            link = await self._dial(first=True)
            self._up(link)
            task_status.started()
            while True:
                await self._serve(link)
                if not self._options.allow_reconnect:
                    raise ConnectionLost(str(link.server), link.reason)

                link = self._take_successor() or await self._dial()
                self.reconnects += 1
                self._up(link)
        except NatsJobsError as error:
            self._end(error)
            raise
        finally:
            self._end(ConnectionClosed())
            if (successor := self._take_successor()) is not None:
                await successor.close()

    async def beat(self) -> None:
        """Keep the receipt times honest, until cancelled."""
        await self.pulse.beat(self._feel)

    def _feel(self) -> None:
        if self.link is not None:
            self.link.feel()

    async def _dial(self, *, first: bool = False, instead_of: Link | None = None) -> Link:
        avoid = instead_of.server if instead_of else None
        greeted = await dial(self._pool, self._options, first=first, avoid=avoid)
        return Link(greeted, self._options, self.pulse, self)

    async def _serve(self, link: Link) -> None:
        """Carry frames over `link` until it breaks."""
        try:
            async with anyio.create_task_group() as group:
                if self._options.allow_reconnect:
                    group.start_soon(self._move_away, link)

                await link.run()
                group.cancel_scope.cancel("the link has ended")
        finally:
            await link.close()

    async def _move_away(self, link: Link) -> None:
        """When the server announces its end: find another one while this one still serves, and go in order."""
        await link.leaving.wait()
        try:
            self._successor = await self._dial(instead_of=link)
        except NatsJobsError:
            # There is no other: stay as long as this one lets us.
            return

        self.link = None
        self._linked = anyio.Event()
        self._interests.move_out(link)
        with anyio.move_on_after(_HANDOVER):
            await link.flushed()
            await self._requests.wait_all_answered()

        link.break_off(f"the server is shutting down; moved to {self._successor.server}")

    def _take_successor(self) -> Link | None:
        link, self._successor = self._successor, None
        return link

    # What happens to the link...

    def _up(self, link: Link) -> None:
        self.link = self._counting = link
        self.info = {}
        self._requests.admit()
        self.pulse.restart()
        self._learn(link, link.greeting)
        self._pool.discover(link.greeting.get("connect_urls"), link.server)
        self._interests.move_in(link)
        self._linked.set()
        self._interests.announce()
        self._listener.on_connected(str(link.server), self.reconnects)

    def link_broke(self, link: Link, reason: str) -> None:
        if self.link is link:
            self.link = None
            self._linked = anyio.Event()

        self._sum_up()
        self._requests.fail_all(ConnectionLost(str(link.server), reason))
        self._listener.on_disconnected(str(link.server), reason)

    def _sum_up(self) -> None:
        """Keep what the link has counted."""
        link, self._counting = self._counting, None
        if link is None:
            return

        self._bytes_in += link.bytes_in
        self._bytes_out += link.bytes_out
        self._messages_out += link.messages_out
        if link.round_trip is not None:
            self._round_trip = link.round_trip

    def _end(self, error: Exception) -> None:
        """Nothing can come any more: everybody who waits is told why."""
        if self.closed is not None:
            return

        self.closed = error
        self._sum_up()
        if self.link is not None:
            link, self.link = self.link, None
            self._requests.fail_all(ConnectionLost(str(link.server), "closed on this side"))
            link.fail_pings("closed on this side")

        self._linked.set()
        self._interests.fail_all(error)

    # What the link brings...

    def take_info(self, link: Link, fields: dict[str, Any]) -> None:
        """Follow what the server says of itself and its cluster (INFO of the client protocol, ADR-40)."""
        self._learn(link, fields)
        self._pool.discover(fields.get("connect_urls"), link.server)
        if self.info.get("ldm") and len(self._pool) > 1:
            link.leaving.set()

    def take_error(self, link: Link, text: str) -> None:
        self._complaints.take(link, text)
        self._listener.on_server_error(str(link.server), text)

    def _learn(self, link: Link, fields: dict[str, Any]) -> None:
        self.info = updated(self.info, fields)
        link.obey(self.info)
