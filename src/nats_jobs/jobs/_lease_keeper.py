"""The one who keeps the leases: what is ours, until when, and what the server is told of it.

The server cannot tell us that we still own a message, and acts on what a former owner says
(nats-server's consumer.go, processAck). So ownership is computed here, on the monotonic clock:

* A lease is trusted from a moment not later than the delivery, for `ack_wait` less a margin.
* A third of `ack_wait` on, an extension is asked for. When the server confirms it, the lease is trusted
  from the moment of *asking*, never from that of the reply.
* A lease that is used up is lost: the job is cancelled before the server may give the message to anyone
  else, and nothing is sent for it any more, by nobody.
* An ack or term is sent again until it is confirmed or the lease is used up. A nak is not, once it may
  have arrived: by then the message can be with another worker, and a second nak would take it away.
* Of two deliveries of one message the later one counts; the holder of the earlier has lost it. Of two that
  have the same count, because a server forgot the first, either counts.

What this cannot exclude: a consumer leader that crashes right after it confirmed an extension, or made a
delivery, may redeliver early. `Job.fence` is for effects that must not happen twice even then.

`LeaseKeeper` decides and never waits; `keep` is its clockwork.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol

import anyio

from .._clock import Clock
from ..errors import NatsJobsError, NoResponders, PermissionDenied
from ..jetstream import Delivery, Settlement, reply_error
from ..wire import Connection, Reply
from ._lease import Lease

__all__ = ("LeaseKeeper", "LeaseListener")

_ON_HOLD = "the link is new, and whether the consumer is still the same was not answered"
# Fractions of ack_wait.
_ASK_AFTER = 1 / 3
_TICK = 1 / 20
_MARGIN = 1 / 10
# Seconds without a confirmation after which an ack or term is sent again.
_RESEND_AFTER = 2.0
# So many extensions can be under way. At the pace of asking, an earlier one would be worth nothing any more.
_MAX_ASKED = 10


class LeaseListener(Protocol):
    """What the keeper tells the engine. Must return at once."""

    def lease_lost(self, lease: Lease, reason: str) -> None:
        """The lease is gone while it was held: cancel the job, or do not start it."""

    def lease_idle(self, lease: Lease) -> bool:
        """A delivery has waited unstarted for a third of `ack_wait`. Return whether to keep it; if not, it was settled."""
        ...

    def lease_extended(self, lease: Lease) -> None:
        """An extension is being asked for."""

    def refused(self, error: NatsJobsError) -> None:
        """The server, or the loss of the link, answered with an error: is the consumer still there, and open to us?"""

    def on_rival_claim(self, lease: Lease) -> None:
        """Somebody else believes to hold the message, or may do so: announce that we do."""

    def not_confirmed(self, lease: Lease, reason: str) -> None:
        """The lease ended while its settlement was unconfirmed."""


class LeaseKeeper:
    """Every delivery that this worker has in hand, from its receipt until its settlement is confirmed."""

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        *,
        ack_wait: float,
        auto_extend: bool,
        listener: LeaseListener,
    ) -> None:
        self._set_ack_wait(ack_wait)
        self._connection = connection
        self._clock = clock
        self._auto_extend = auto_extend
        self._listener = listener
        self._on_hold = False
        # One entry for each message: of two deliveries of the same one, only the later can be ours.
        self._leases: dict[int, Lease] = {}
        self._kept = True
        self._dormant = False
        self._woken = anyio.Event()
        self._emptied: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, delivery: Delivery) -> Lease | None:
        """Take in a delivery that has just come in; None when its lease was used up on the way, or a later one is here."""
        known = self._leases.get(delivery.sequence)
        if known is not None:
            if known.delivery.attempt >= delivery.attempt:
                return None

            self._lose(known, "the server delivered the job again")

        trusted_until = delivery.sent_not_before + self._trusted_for
        if self._clock() >= trusted_until:
            return None

        lease = Lease(delivery, trusted_until, delivery.sent_not_before + self.extension_interval)
        self._leases[delivery.sequence] = lease
        if self._dormant:
            self._woken.set()

        return lease

    def attempt_held(self, sequence: int) -> int:
        """Return which delivery of a message is in hand, settled or not; 0 when none is."""
        lease = self._leases.get(sequence)
        return lease.delivery.attempt if lease is not None and self._clock() < lease.trusted_until else 0

    def is_held(self, lease: Lease) -> bool:
        """Whether the delivery is ours to work on: not answered, not lost. Notices a loss that the clock has brought."""
        return self._is_held(lease, self._clock())

    def settle(self, lease: Lease, settlement: Settlement) -> bool:
        """Settle a delivery; False, and nothing is sent, when it is no longer ours."""
        now = self._clock()
        if not self._is_held(lease, now):
            return False

        lease.settlement = settlement
        self._send_settlement(lease, now)
        return True

    def on_claim(self, sequence: int, attempt: int, gives_way: bool = False) -> None:
        """Another worker announced which delivery of a message it holds: the later one counts, and if that is ours, it is told.

        Args:
            gives_way: whether we are the one who gives way when the two have the same count.
        """
        lease = self._leases.get(sequence)
        if lease is None:
            return

        ours = lease.delivery.attempt
        if ours < attempt or (ours == attempt and gives_way):
            self._lose(lease, "another worker announced that it has the job now")
        elif lease.settlement is None:
            self._listener.on_rival_claim(lease)

    def mark_doubtful(self) -> list[Delivery]:
        """The link was broken, perhaps as the server died: what it knew of our leases it may have forgotten. Return what we hold."""
        held = [lease for lease in self._leases.values() if lease.settlement is None]
        for lease in held:
            lease.doubtful = True

        return [lease.delivery for lease in held]

    def hold(self) -> None:
        """Send nothing for now: whether the consumer is still the one that made these deliveries is not known."""
        self._on_hold = True

    def adopt(self, ack_wait: float) -> None:
        """The consumer is the same, and this is its `ack_wait` now. What was held back is sent.

        A shorter one counts at once, from the moments that leases are counted from, also when they are used up by that.
        So they may have been before an extension that came in since it was edited: the server confirms any, also one for
        a job that it is about to give to somebody else. A longer one counts with the next extension that is confirmed.
        """
        gaps = {lease: lease.longest_gap for lease in self._leases.values()}
        for lease in gaps:
            lease.longest_gap = 0.0

        if self._on_hold:
            self._on_hold = False
            self._woken.set()

        if ack_wait == self.ack_wait:
            return

        self._set_ack_wait(ack_wait)
        for lease, longest_gap in gaps.items():
            if longest_gap >= self._trusted_for and lease.settlement is None:
                self._lose(
                    lease, f"ack_wait is {ack_wait:g} s now, and the job was not extended as often as that"
                )
                continue

            lease.trusted_until = min(lease.trusted_until, lease.counted_from + self._trusted_for)
            if lease.settlement is None:
                lease.ask_at = min(lease.ask_at, lease.counted_from + self.extension_interval)

        self._woken.set()

    def _set_ack_wait(self, ack_wait: float) -> None:
        self.ack_wait = ack_wait
        self.extension_interval = ack_wait * _ASK_AFTER
        self._tick_interval = ack_wait * _TICK
        self._trusted_for = ack_wait - ack_wait * _MARGIN

    def lose_all(self, reason: str) -> None:
        """The consumer is gone: no delivery of it belongs to anybody, and what was held back is never sent."""
        for lease in list(self._leases.values()):
            self._lose(lease, reason)

    async def extend(self, lease: Lease) -> None:
        """Ask for an extension until one is confirmed or the lease is closed. Return at once when it is not ours."""
        now = self._clock()
        if self._is_held(lease, now):
            confirmed = lease.confirmed = lease.confirmed or anyio.Event()
            self._ask_extension(lease, now)
            await confirmed.wait()

    async def keep(self) -> None:
        """Extend, repeat and give up, as time goes by. Until cancelled."""
        try:
            while True:
                self._woken = anyio.Event()
                self._dormant = not self._leases
                with anyio.CancelScope(deadline=math.inf if self._dormant else self.tick()):
                    await self._woken.wait()
        finally:
            # Ended before its worker: asyncio cancels every task when a SystemExit leaves the loop. Nobody
            # would give up what is in hand any more, so nobody must wait for it.
            self._kept = False
            if self._emptied is not None:
                self._emptied.set()

    async def wait_empty(self) -> None:
        """Wait until every delivery is settled or lost. A lease lasts `ack_wait` at most without extensions."""
        while self._leases and self._kept:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    def tick(self) -> float:
        """Do for every lease what is due, and return when to look again."""
        now = self._clock()
        again = now + self._tick_interval
        for lease in list(self._leases.values()):
            if lease.closed:
                continue

            if now >= lease.trusted_until:
                self._expire(lease)
            elif lease.settlement is not None:
                self._resend(lease, now)
            elif now >= lease.ask_at:
                self._prolong(lease, now)

            if not lease.closed:
                again = min(again, lease.trusted_until)

        return again

    def _prolong(self, lease: Lease, now: float) -> None:
        if not lease.started and not self._listener.lease_idle(lease):
            return

        if self._auto_extend or lease.always_extend or lease.confirmed is not None:
            self._ask_extension(lease, now)
            if not lease.closed:
                self._listener.lease_extended(lease)

    def _ask_extension(self, lease: Lease, now: float) -> None:
        # Asked again on the next tick if this one cannot be sent, or is refused.
        lease.ask_at = now + self._tick_interval
        if self._on_hold:
            lease.trouble = _ON_HOLD
            return

        try:
            lease.tokens.append(
                lease.delivery.ask_extension(partial(self._on_extension, lease, now, self._trusted_for))
            )
        except NatsJobsError as error:
            lease.trouble = str(error)
        else:
            lease.ask_at = now + self.extension_interval / 2
            if len(lease.tokens) > _MAX_ASKED:
                self._connection.lowlevel.cancel_request(lease.tokens.pop(0))

    def _on_extension(self, lease: Lease, asked_at: float, trusted_for: float, reply: Reply) -> None:
        error = reply_error(reply)
        if error is not None:
            lease.trouble = str(error)
            lease.ask_at = min(lease.ask_at, asked_at + self._tick_interval)
            self._listener.refused(error)
        elif self.is_held(lease):
            # Read after the lease was used up, it may be the next holder's that the server has extended.
            lease.trouble = None
            lease.longest_gap = max(lease.longest_gap, asked_at - lease.counted_from)
            lease.counted_from = max(lease.counted_from, asked_at)
            # Asked for under an ack_wait that is not the longer of the two, if that was edited since.
            until = asked_at + min(trusted_for, self._trusted_for)
            lease.trusted_until = max(lease.trusted_until, until)
            lease.ask_at = asked_at + self.extension_interval
            lease.wake_extenders()
            if lease.doubtful:
                self._listener.on_rival_claim(lease)

    def _resend(self, lease: Lease, now: float) -> None:
        assert lease.settlement is not None
        doubtful = lease.trouble is not None or now - lease.settled_at > _RESEND_AFTER
        if lease.not_sent or (doubtful and not lease.settlement.is_nak):
            self._send_settlement(lease, now)

    def _is_held(self, lease: Lease, now: float) -> bool:
        if not lease.closed and now >= lease.trusted_until:
            self._expire(lease)

        return not lease.closed and lease.settlement is None

    def _send_settlement(self, lease: Lease, now: float) -> None:
        assert lease.settlement is not None
        lease.settled_at = now
        lease.trouble = None
        lease.not_sent = False
        if self._on_hold:
            lease.not_sent = True
            lease.trouble = _ON_HOLD
            return

        try:
            lease.tokens.append(lease.delivery.settle(lease.settlement, partial(self._on_settlement, lease)))
        except NatsJobsError as error:
            lease.not_sent = True
            lease.trouble = str(error)

    def _on_settlement(self, lease: Lease, reply: Reply) -> None:
        error = reply_error(reply)
        if isinstance(error, PermissionDenied):
            # It will not be taken later either.
            self._close(lease)
            self._listener.not_confirmed(lease, str(error))
            self._listener.refused(error)
        elif error is not None:
            # Nobody was there to take it: then it cannot have arrived.
            lease.not_sent = isinstance(error, NoResponders)
            lease.trouble = str(error)
        elif not lease.closed:
            self._close(lease)

    def _expire(self, lease: Lease) -> None:
        reason = lease.trouble or (
            "the event loop or the process was held up" if self._auto_extend else "ack_wait is over"
        )
        if lease.settlement is not None:
            self._close(lease)
            self._listener.not_confirmed(lease, reason)
        else:
            self._lose(lease, f"no extension was confirmed in time: {reason}")

    def _lose(self, lease: Lease, reason: str) -> None:
        self._close(lease)
        if lease.settlement is None:
            self._listener.lease_lost(lease, reason)
        elif not lease.settlement.is_nak:
            # That a message comes again after a nak only shows that it has arrived.
            self._listener.not_confirmed(lease, reason)

    def _close(self, lease: Lease) -> None:
        lease.closed = True
        lease.wake_extenders()
        for token in lease.tokens:
            self._connection.lowlevel.cancel_request(token)

        if self._leases.get(lease.delivery.sequence) is lease:
            del self._leases[lease.delivery.sequence]
            if not self._leases and self._emptied is not None:
                self._emptied.set()
