"""A worker reduced to its leases: it pulls from the fake server, enters what comes in, and notes what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import anyio
from anyio.abc import TaskGroup

from nats_jobs._clock import running_clock
from nats_jobs._groups import unwrapped
from nats_jobs.errors import NatsJobsError
from nats_jobs.jetstream import Delivery, Settlement
from nats_jobs.jobs._claims import Claims
from nats_jobs.jobs._lease import Lease
from nats_jobs.jobs._lease_keeper import LeaseKeeper
from nats_jobs.units import to_ns
from nats_jobs.wire import Connection, Msg
from support.fake_link import IN_PROGRESS, NAK, Clock, FakeLink, FakeServer, Sent

__all__ = ("Desk", "Office", "Told", "office")


@dataclass(frozen=True)
class Told:
    """What the book said about a lease, and when."""

    at: float
    lease: Lease
    reason: str


class Desk:
    """One worker's leases. It is also the `LeaseListener` of its book."""

    def __init__(
        self, server: FakeServer, link: FakeLink, *, auto_extend: bool = True, start: bool = True
    ) -> None:
        self.link = link
        self.clock: Clock = server.clock
        self.keeper = LeaseKeeper(
            self.connection, self.clock, ack_wait=server.ack_wait, auto_extend=auto_extend, listener=self
        )
        self.leases: list[Lease] = []
        self.dropped: list[Delivery] = []
        self.lost: list[Told] = []
        self.unconfirmed: list[Told] = []
        self.extended: list[float] = []
        self.refusals: list[NatsJobsError] = []
        self.rival_claims: list[Lease] = []
        self.idle: list[float] = []
        self.keeps_idle = False
        self._start = start
        self._server = server
        self._inbox = link.new_inbox()
        link.lowlevel.subscribe_nowait(self._inbox, self._receive)

    def listen_to_claims(self) -> Claims:
        """Announce, and hear, who holds what; for good."""
        claims = Claims(
            self.connection,
            "S",
            "C",
            on_claim=self.keeper.on_claim,
            mark_doubtful=self.keeper.mark_doubtful,
        )
        claims.bind("id")
        return claims

    @property
    def connection(self) -> Connection:
        return cast(Connection, self.link)

    @property
    def lease(self) -> Lease:
        """The latest lease."""
        return self.leases[-1]

    def pull(self, batch: int = 1) -> None:
        """Ask for deliveries, for an hour."""
        body = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (batch, to_ns(3600), to_ns(1800))
        self.link.lowlevel.publish_nowait(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._server.stream}.{self._server.consumer}", self._inbox, b"", body
        )

    def takes_to_own(self, lease: Lease) -> bool:
        """Whether the handler of a lease would think now that it may go on."""
        return lease in self.leases and not lease.closed and lease.settlement is None

    def _receive(self, message: Msg) -> None:
        if not message.reply:
            return

        delivery = Delivery(self.connection, message, self.link.sent_not_before)
        lease = self.keeper.add(delivery)
        if lease is None:
            self.dropped.append(delivery)
        else:
            lease.started = self._start
            self.leases.append(lease)

    # What the book tells...

    def lease_lost(self, lease: Lease, reason: str) -> None:
        assert lease.closed
        assert lease not in [told.lease for told in self.lost], "said twice"
        self.lost.append(Told(self.clock(), lease, reason))

    def lease_idle(self, lease: Lease) -> bool:
        self.idle.append(self.clock())
        if not self.keeps_idle:
            assert self.keeper.settle(lease, Settlement.nak())

        return self.keeps_idle

    def lease_extended(self, lease: Lease) -> None:
        self.extended.append(self.clock())

    def refused(self, error: NatsJobsError) -> None:
        self.refusals.append(error)

    def on_rival_claim(self, lease: Lease) -> None:
        self.rival_claims.append(lease)

    def not_confirmed(self, lease: Lease, reason: str) -> None:
        assert lease.closed
        assert lease not in [told.lease for told in self.unconfirmed], "said twice"
        self.unconfirmed.append(Told(self.clock(), lease, reason))


class Office:
    """A server and the desks on it. With a group, everybody lives by the clock; without, by hand."""

    def __init__(self, clock: Clock, ack_wait: float, group: TaskGroup | None = None) -> None:
        self.server = FakeServer(clock, ack_wait=ack_wait)
        self.desks: list[Desk] = []
        self._group = group
        if group is not None:
            group.start_soon(self.server.run)

    def desk(self, *, auto_extend: bool = True, start: bool = True) -> Desk:
        """Return a new desk, whose book is kept if there is a group."""
        desk = Desk(
            self.server, self.server.link(f"desk{len(self.desks)}"), auto_extend=auto_extend, start=start
        )
        self.desks.append(desk)
        if self._group is not None:
            self._group.start_soon(desk.keeper.keep)

        return desk

    def sent(self, of: bytes | Settlement | None = None) -> list[Sent]:
        """What was sent about deliveries; all of it, or only one word."""
        data = of.body if isinstance(of, Settlement) else of
        return [sent for sent in self.server.sent if data is None or sent.data == data]

    def deliveries(self) -> list[tuple[str, int, int]]:
        return [(each.link, each.sequence, each.attempt) for each in self.server.delivered]

    def check(self) -> None:
        """Hold what happened against what must never happen."""
        assert not self.server.offences
        for desk in self.desks:
            for lease in desk.leases:
                own = [s.data for s in self._sent_for(desk, lease) if s.data != IN_PROGRESS]
                assert len(set(own)) <= 1, f"two different answers: {own}"

    def check_lost_before_redelivery(self) -> None:
        """No delivery may have begun while a former holder, awake all the time, still thought it was its own."""
        given = {(each.sequence, each.attempt): each for each in self.server.delivered}
        for desk in self.desks:
            for lease in desk.leases:
                later = given.get((lease.delivery.sequence, lease.delivery.attempt + 1))
                if later is not None and not any(s.data.startswith(NAK) for s in self._sent_for(desk, lease)):
                    assert lease.closed
                    ended = [told.at for told in desk.lost + desk.unconfirmed if told.lease is lease]
                    assert ended, "the message came again, and its former holder was told nothing"
                    assert ended[0] < later.at

    def _sent_for(self, desk: Desk, lease: Lease) -> list[Sent]:
        number = (desk.link.name, lease.delivery.sequence, lease.delivery.attempt)
        return [sent for sent in self.server.sent if (sent.link, sent.sequence, sent.attempt) == number]


@asynccontextmanager
async def office(ack_wait: float = 10.0) -> AsyncIterator[Office]:
    """Run a server, and desks whose books are kept, in virtual time. Checked when the block is left."""
    with unwrapped():
        async with anyio.create_task_group() as group:
            built = Office(running_clock(), ack_wait, group)
            yield built
            built.check()
            group.cancel_scope.cancel("the test is over")
