"""The lease: our right to work on a delivery. `LeaseKeeper` changes it, and has the rules."""

from __future__ import annotations

import anyio

from ..jetstream import Delivery, Settlement

__all__ = ("Lease",)


class Lease:
    """One delivery in hand. `trusted_until` is on the monotonic clock.

    `longest_gap`: seconds between two moments that it was counted from, since the consumer's `ack_wait` was last seen.
    """

    __slots__ = (
        "always_extend",
        "ask_at",
        "closed",
        "confirmed",
        "counted_from",
        "delivery",
        "doubtful",
        "longest_gap",
        "not_sent",
        "settled_at",
        "settlement",
        "started",
        "tokens",
        "trouble",
        "trusted_until",
    )

    def __init__(self, delivery: Delivery, trusted_until: float, ask_at: float) -> None:
        self.delivery = delivery
        self.counted_from = delivery.sent_not_before
        self.longest_gap = 0.0
        self.trusted_until = trusted_until
        self.ask_at = ask_at
        self.started = False
        self.always_extend = False
        self.closed = False
        self.doubtful = False
        self.settlement: Settlement | None = None
        self.settled_at = 0.0
        self.trouble: str | None = None
        self.not_sent = False
        self.tokens: list[str] = []
        self.confirmed: anyio.Event | None = None

    def wake_extenders(self) -> None:
        """An extension was confirmed, or none will be: who waits for one goes on."""
        if self.confirmed is not None:
            self.confirmed.set()
            self.confirmed = None
