"""A delivery as `enqueue` and a server would have made it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack, cast

from ..errors import UsageError
from ..jetstream import Delivery
from ..jobs import JobDef, destination_of
from ..units import to_ns
from ..wire import Connection, HeaderInput, Msg
from ._connection import ConfirmingConnection

__all__ = ("DeliveryOptions", "made_up_delivery")


class DeliveryOptions(TypedDict, total=False):
    """What a test may say of the message.

    Args:
        attempt: which delivery of the message it is; 1 or more, default 1.
        id: what it was enqueued with; default `test`.
        headers: as for `enqueue`.
        subject: as for `enqueue`.
        sequence: its number in the stream; 1 or more, default 1.
        enqueued_at: an aware datetime; default now.
        pending: how many jobs came after it; default 0.
    """

    attempt: int
    id: str
    headers: HeaderInput | None
    subject: str | None
    sequence: int
    enqueued_at: datetime | None
    pending: int


@dataclass(frozen=True, kw_only=True)
class _Message:
    attempt: int = 1
    id: str = "test"
    headers: HeaderInput | None = None
    subject: str | None = None
    sequence: int = 1
    enqueued_at: datetime | None = None
    pending: int = 0

    def __post_init__(self) -> None:
        for name, lowest in (("attempt", 1), ("sequence", 1), ("pending", 0)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < lowest:
                raise UsageError(f"{name} is {number!r}; a whole number, {lowest} or more, is needed")


def made_up_delivery(
    defn: JobDef[Any],
    payload: object,
    connection: ConfirmingConnection,
    sent_not_before: float = -math.inf,
    **options: Unpack[DeliveryOptions],
) -> Delivery:
    """Return the delivery of a job that was enqueued in this way.

    Raises:
        UsageError, EncodeError, BadSubject: what `enqueue` would refuse.
    """
    if not isinstance(defn, JobDef):
        raise UsageError(f'{defn!r} is not a JobDef; build one, or put @job("STREAM") above the function')

    said = _Message(**options)
    destination = destination_of(defn, said.subject)
    subject, block = destination.route(destination.checked(said.headers)).address(said.id.encode())
    data = destination.codec.encode(payload)
    stored = to_ns((said.enqueued_at or datetime.now(UTC)).timestamp())
    place: Sequence[object] = (
        *(defn.stream, defn.consumer, said.attempt, said.sequence, said.sequence),
        *(stored, said.pending),
    )
    reply = f"$JS.ACK.{'.'.join(map(str, place))}"
    message = Msg(subject, 0, reply, block, data)
    return Delivery(cast(Connection, connection), message, sent_not_before)
