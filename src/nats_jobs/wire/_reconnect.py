"""One link after the other, and the orderly passage from each to the next.

Task tree, inside the group of `connect`::

    keep_connected        runs a link until it breaks, then connects to the next server
      ├─ Link.run         reader, writer, keepalive
      └─ _migrate         when the server says it is about to end: connects to another one first
    Pulse.beat            honest receipt times

States of the session::

    CONNECTING ──▶ CONNECTED ◀──▶ RECONNECTING
         └─────────────┴────▶ CLOSED ◀──┘
"""

from __future__ import annotations

import anyio
from anyio.abc import TaskStatus

from ..errors import ConnectionLost, NatsJobsError
from ._dial import dial
from ._link import Link
from ._session import Session

__all__ = ("keep_connected",)

# What requests that are under way get when the server is left in peace; it gives us some 10 s (lame_duck_grace_period).
_HANDOVER_TIMEOUT = 1.0


async def keep_connected(session: Session, *, task_status: TaskStatus[None]) -> None:
    """Connect, and connect again, until cancelled, which closes the session.

    Raises:
        ConnectFailed, AuthorizationFailed: no server is left to try. Raised through `task_status` the first time.
        ConnectionLost: the connection broke, with `allow_reconnect=False`.
    """
    passage = _Passage(session)
    try:
        session.on_connected(link := await passage.next_link(first=True))
        task_status.started()
        while True:
            await passage.serve(link)
            if not session.options.allow_reconnect:
                raise ConnectionLost(str(link.server), link.reason)

            session.on_connected(link := await passage.next_link())
    except NatsJobsError as error:
        session.close(error)
        raise
    finally:
        session.close()
        await passage.close()


class _Passage:
    """From one link to the next. `_successor` is the one that is ready before its predecessor has ended."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._successor: Link | None = None

    async def next_link(self, *, first: bool = False) -> Link:
        if (link := self._take_successor()) is not None:
            return link

        return await self._dial(first=first)

    async def serve(self, link: Link) -> None:
        """Carry frames over `link` until it breaks."""
        try:
            async with anyio.create_task_group() as group:
                if self._session.options.allow_reconnect:
                    group.start_soon(self._migrate, link)

                await link.run()
                group.cancel_scope.cancel("the link has ended")
        finally:
            await link.close()

    async def close(self) -> None:
        if (successor := self._take_successor()) is not None:
            await successor.close()

    async def _migrate(self, link: Link) -> None:
        """When the server announces its end (lame duck): find another one while this one still serves, and go in order."""
        await link.leaving.wait()
        try:
            self._successor = await self._dial(instead_of=link)
        except NatsJobsError:
            # There is no other: stay as long as this one lets us.
            return

        self._session.leave(link)
        with anyio.move_on_after(_HANDOVER_TIMEOUT):
            await link.flushed()
            await self._session.requests.wait_all_answered()

        link.break_off(f"the server is shutting down; moved to {self._successor.server}")

    async def _dial(self, *, first: bool = False, instead_of: Link | None = None) -> Link:
        session = self._session
        avoid = instead_of.server if instead_of else None
        greeted = await dial(session.pool, session.options, first=first, avoid=avoid)
        return Link(greeted, session.options, session.pulse, session)

    def _take_successor(self) -> Link | None:
        link, self._successor = self._successor, None
        return link
