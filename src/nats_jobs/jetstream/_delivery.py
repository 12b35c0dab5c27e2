"""One delivered message, and what settles it.

The server matches a settlement by stream sequence alone and cannot tell whether we still own the message
(nats-server's consumer.go, processAck). Knowing that is the business of its holder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from ..errors import NatsJobsError, NoResponders, UsageError
from ..units import to_ns, utc_from_ns
from ..wire import Connection, Headers, Msg, OnReply, Reply

__all__ = ("ACK", "IN_PROGRESS", "Delivery", "Settlement", "is_delivery", "reply_error")

IN_PROGRESS = b"+WPI"
_ACK_PREFIX = "$JS.ACK."
# Seconds, about a century: a longer delay overflows at the server.
_MAX_DELAY = 100 * 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Settlement:
    """The one final answer to a delivery; `body` is what the server is sent."""

    body: bytes

    @classmethod
    def nak(cls, delay: float = 0.0) -> Self:
        """Redeliver after `delay` seconds; 0 is at once, and about a century the most."""
        return cls(b'-NAK {"delay": %d}' % to_ns(min(delay, _MAX_DELAY)) if delay > 0 else b"-NAK")

    @classmethod
    def term(cls, reason: str = "") -> Self:
        """Never redeliver. The server's advisory carries `reason`."""
        return cls(" ".join(("+TERM", *reason.split())).encode("utf-8", "replace"))

    @property
    def is_nak(self) -> bool:
        """Whether the message is for the next worker then."""
        return self.body.startswith(b"-NAK")

    @property
    def name(self) -> str:
        """`ack`, `nak` or `term`."""
        return self.body.split(b" ")[0].decode()[1:].lower()

    def __str__(self) -> str:
        return self.body.decode()


ACK = Settlement(b"+ACK")


def is_delivery(message: Msg) -> bool:
    """Whether a message on a pull inbox is a job, not a status."""
    return message.reply.startswith(_ACK_PREFIX)


def reply_error(reply: Reply) -> NatsJobsError | None:
    """Return why a settlement was not confirmed; None when it was."""
    if type(reply) is Msg:
        return NoResponders(reply.subject) if reply.status == 503 else None

    assert not isinstance(reply, Msg)
    return reply


class Delivery:
    """A message with an ack deadline at the server. `attempt` counts its deliveries, from 1."""

    __slots__ = (
        "_connection",
        "_message",
        "_settlement",
        "_tokens",
        "attempt",
        "sent_not_before",
        "sequence",
    )

    def __init__(self, connection: Connection, message: Msg, sent_not_before: float) -> None:
        # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<stored>.<pending>, or from
        # 11 tokens on with <domain>.<account> before the stream, and perhaps more at the end.
        tokens = message.reply.split(".")
        shift = 2 if len(tokens) >= 11 else 0
        self._tokens = tokens[2 + shift :]
        self.attempt = int(tokens[4 + shift])
        self.sequence = int(tokens[5 + shift])
        self.sent_not_before = sent_not_before
        self._connection = connection
        self._message = message
        self._settlement: Settlement | None = None

    @property
    def subject(self) -> str:
        return self._message.subject

    @property
    def data(self) -> bytes:
        return self._message.data

    @property
    def headers(self) -> Headers:
        return self._message.headers

    @property
    def has_headers(self) -> bool:
        return self._message.has_headers

    def first_header(self, name: bytes) -> str | None:
        """Return one header without parsing the others; see `Msg.first_header`."""
        return self._message.first_header(name)

    @property
    def stream(self) -> str:
        return self._tokens[0]

    @property
    def consumer(self) -> str:
        return self._tokens[1]

    @property
    def stored_at(self) -> datetime:
        """When the server stored the message, UTC."""
        return utc_from_ns(int(self._tokens[5]))

    @property
    def pending(self) -> int:
        """How many messages of the consumer were not yet delivered at that moment."""
        return int(self._tokens[6])

    def settle(self, settlement: Settlement, on_reply: OnReply) -> str:
        """Queue what settles this delivery. May be repeated with the same settlement only.

        Returns at once; see `connection.lowlevel.request_nowait` for `on_reply`, the result and what is raised.

        Raises:
            UsageError: it was settled otherwise before.
        """
        if self._settlement is not None and self._settlement != settlement:
            raise UsageError(f"{self.stream}/{self.sequence} is settled already, as {self._settlement}")

        self._settlement = settlement
        return self._connection.lowlevel.request_nowait(self._message.reply, settlement.body, on_reply)

    def ask_extension(self, on_reply: OnReply) -> str:
        """Queue a request for another `ack_wait`. Returns at once, as `settle` does."""
        return self._connection.lowlevel.request_nowait(self._message.reply, IN_PROGRESS, on_reply)

    def __repr__(self) -> str:
        return f"Delivery({self.stream}/{self.sequence}, attempt {self.attempt}, {json.dumps(self.subject)})"
