"""One delivered message, and the answers that settle it.

The server matches an answer by stream sequence alone and cannot tell whether we still own the message
(nats-server's consumer.go, processAck). Knowing that is the business of whoever holds the delivery.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

import anyio

from ..errors import NatsJobsError, NoResponders, RequestTimeout, UsageError
from ..units import to_ns, utc_from_ns
from ..wire import Connection, Headers, Msg, OnReply, Reply, unwrap_reply

__all__ = (
    "ACK",
    "IN_PROGRESS",
    "Answer",
    "Delivery",
    "is_delivery",
    "is_nak",
    "nak_answer",
    "reply_error",
    "term_answer",
)

Answer = bytes

ACK: Answer = b"+ACK"
IN_PROGRESS: Answer = b"+WPI"
_ACK_PREFIX = "$JS.ACK."
_CONFIRM_TIMEOUT = 5.0
_CENTURY = 100 * 365 * 24 * 3600.0


def nak_answer(delay: float = 0.0) -> Answer:
    """Redeliver after `delay` seconds; 0 is at once, and a century the most: more overflows at the server."""
    return b'-NAK {"delay": %d}' % to_ns(min(delay, _CENTURY)) if delay > 0 else b"-NAK"


def is_nak(answer: Answer) -> bool:
    """Whether an answer gives the message to the next worker."""
    return answer.startswith(b"-NAK")


def term_answer(reason: str = "") -> Answer:
    """Never redeliver. The server's advisory carries `reason`."""
    return " ".join(("+TERM", *reason.split())).encode("utf-8", "replace")


def is_delivery(message: Msg) -> bool:
    """Whether a message on a pull inbox is a job, not a status."""
    return message.reply.startswith(_ACK_PREFIX)


def reply_error(reply: Reply) -> NatsJobsError | None:
    """Return why an answer was not confirmed; None when it was."""
    if type(reply) is Msg:
        return NoResponders(reply.subject) if reply.status == 503 else None

    assert not isinstance(reply, Msg)
    return reply


class Delivery:
    """A message with an ack deadline at the server. `attempt` counts its deliveries, from 1."""

    __slots__ = ("_answer", "_connection", "_message", "_tokens", "attempt", "sent_not_before", "sequence")

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
        self._answer: Answer | None = None

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
    def consumer_sequence(self) -> int:
        return int(self._tokens[4])

    @property
    def stored_at(self) -> datetime:
        """When the server stored the message, UTC."""
        return utc_from_ns(int(self._tokens[5]))

    @property
    def pending(self) -> int:
        """How many messages of the consumer were not yet delivered at that moment."""
        return int(self._tokens[6])

    @property
    def settled(self) -> bool:
        """Whether an answer was chosen."""
        return self._answer is not None

    def settle(self, answer: Answer, on_reply: OnReply) -> str:
        """Queue the answer that settles this delivery. May be repeated with the same answer only.

        Returns at once; see `connection.lowlevel.request_nowait` for `on_reply`, the result and what is raised.

        Raises:
            UsageError: another answer was given before.
        """
        if self._answer is not None and self._answer != answer:
            raise UsageError(f"{self.stream}/{self.sequence} is settled already, as {self._answer.decode()}")

        self._answer = answer
        return self._connection.lowlevel.request_nowait(self._message.reply, answer, on_reply)

    def ask_extension(self, on_reply: OnReply) -> str:
        """Queue a request for another `ack_wait`. Returns at once, as `settle` does."""
        return self._connection.lowlevel.request_nowait(self._message.reply, IN_PROGRESS, on_reply)

    async def ack(self) -> None:
        """Done; wait for the server's confirmation.

        Raises:
            NoResponders, ConnectionLost, RequestTimeout: not confirmed; it may be delivered again.
            UsageError: settled with another answer before.
        """
        await self._confirmed(lambda on_reply: self.settle(ACK, on_reply))

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back, for delivery after `delay` seconds. Raises as `ack` does."""
        await self._confirmed(lambda on_reply: self.settle(nak_answer(delay), on_reply))

    async def term(self, reason: str = "") -> None:
        """Never deliver it again. Raises as `ack` does."""
        await self._confirmed(lambda on_reply: self.settle(term_answer(reason), on_reply))

    async def extend(self) -> None:
        """Restart the ack deadline. Raises as `ack` does."""
        await self._confirmed(self.ask_extension)

    async def _confirmed(self, ask: Callable[[OnReply], str]) -> None:
        replies: list[Reply] = []
        answered = anyio.Event()

        def on_reply(reply: Reply) -> None:
            replies.append(reply)
            answered.set()

        reply_subject = ask(on_reply)
        try:
            with anyio.move_on_after(_CONFIRM_TIMEOUT):
                await answered.wait()
        finally:
            self._connection.lowlevel.cancel_request(reply_subject)

        if not replies:
            raise RequestTimeout(self._message.reply, _CONFIRM_TIMEOUT)

        unwrap_reply(replies[0], self._message.reply)

    def __repr__(self) -> str:
        return f"Delivery({self.stream}/{self.sequence}, attempt {self.attempt}, {json.dumps(self.subject)})"
