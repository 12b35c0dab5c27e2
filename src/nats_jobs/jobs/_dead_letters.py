"""Where spent jobs go: the original message, with headers that say why."""

from __future__ import annotations

from datetime import UTC, datetime

from ..jetstream import Delivery, Publication, publish
from ..units import utc_text
from ..wire import Connection, encode_headers

__all__ = ("STREAM", "SUBJECTS", "Header", "park", "stream_config")

STREAM = "DEAD_LETTERS"
SUBJECTS = "dead_letters.>"
_PARK_TIMEOUT = 15.0
_LONGEST_TEXT = 2000


class Header:
    """The headers of a dead letter, besides those of the original."""

    REASON = "Nats-Jobs-Reason"
    """`exhausted`, `rejected`, `undecodable`, `crash-loop` or `interrupted`."""

    ERROR = "Nats-Jobs-Error"
    ERROR_TYPE = "Nats-Jobs-Error-Type"
    ATTEMPTS = "Nats-Jobs-Attempts"
    STREAM = "Nats-Jobs-Stream"
    CONSUMER = "Nats-Jobs-Consumer"
    SEQUENCE = "Nats-Jobs-Sequence"
    SUBJECT = "Nats-Jobs-Subject"
    ENQUEUED_AT = "Nats-Jobs-Enqueued-At"
    PARKED_AT = "Nats-Jobs-Parked-At"
    ORIGINAL_ID = "Nats-Jobs-Original-Id"


# These tell the server what to do with the message that carries them; on a dead letter they would do it again.
_NOT_COPIED = (
    "nats-msg-id",
    "nats-expected-",
    "nats-ttl",
    "nats-rollup",
    "nats-schedule",
    "status",
    "description",
)


def stream_config() -> dict[str, object]:
    """Return the configuration that the stream is made with."""
    return {
        "name": STREAM,
        "subjects": [SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": 1,
        "max_age": 0,
    }


async def park(connection: Connection, delivery: Delivery, reason: str, error: BaseException) -> None:
    """Publish the dead letter of `delivery` and wait until it is stored.

    Repeating it stores one only: its id is `<stream>:<sequence>`. Settling the original comes after.

    Raises:
        NotConfirmed, PublishRefused, PayloadTooLarge: it is not stored.
    """
    publication = Publication(
        subject=f"dead_letters.{delivery.stream}.{delivery.subject}",
        block=encode_headers(_headers(delivery, reason, error)),
        data=delivery.data,
    )
    await publish(connection, publication, timeout=_PARK_TIMEOUT)


def _headers(delivery: Delivery, reason: str, error: BaseException) -> dict[str, str | list[str]]:
    headers: dict[str, str | list[str]] = {
        name: delivery.headers.get_all(name)
        for name in delivery.headers
        if not name.lower().startswith(_NOT_COPIED)
    }
    original_id = delivery.headers.get("Nats-Msg-Id")
    if original_id is not None:
        headers[Header.ORIGINAL_ID] = original_id

    headers |= {
        "Nats-Msg-Id": f"{delivery.stream}:{delivery.sequence}",
        "Nats-Expected-Stream": STREAM,
        Header.REASON: reason,
        Header.ERROR: str(error)[:_LONGEST_TEXT],
        Header.ERROR_TYPE: type(error).__qualname__,
        Header.ATTEMPTS: str(delivery.attempt),
        Header.STREAM: delivery.stream,
        Header.CONSUMER: delivery.consumer,
        Header.SEQUENCE: str(delivery.sequence),
        Header.SUBJECT: delivery.subject,
        Header.ENQUEUED_AT: utc_text(delivery.stored_at),
        Header.PARKED_AT: utc_text(datetime.now(UTC)),
    }
    return headers
