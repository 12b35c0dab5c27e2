"""Publishing a few messages of which all are stored, or none: nats-server 2.12 and newer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..wire import Connection, unique_token
from ._pub_ack import Enqueued, parse_pub_ack
from ._retrying import TRY_TIMEOUT

__all__ = ("BatchMessage", "publish_batch")


class BatchMessage(NamedTuple):
    """A message of a batch."""

    subject: str
    headers: Mapping[str, str]
    data: bytes


async def publish_batch(
    connection: Connection, messages: Sequence[BatchMessage], *, timeout: float = TRY_TIMEOUT
) -> Enqueued:
    """Store `messages`, one behind the other and with nothing between them, or none of them.

    Tried once. What a check in one of their headers refuses, and a lost connection, refuses them all. After a timeout or
    a cancellation it is open whether they were stored.

    The stream must have `allow_atomic` in the configuration that the server returns: below 2.12 the flag is dropped
    without a word, and every message would be stored by itself.

    Args:
        messages: at most 1000, all for the same stream.
        timeout: seconds.

    Returns:
        The confirmation of the last one.

    Raises:
        PublishRefused: none was stored. `WRONG_LAST_SEQUENCE` and `LAST_SEQUENCE_CONFLICT`: an expected sequence is not
            the stream's. `BATCH_HAS_DUPLICATE_ID`: a message id is known already.
        NoResponders, ConnectionLost, RequestTimeout, PayloadTooLarge, PermissionDenied.
    """
    batch = unique_token()
    *first, last = (_numbered(message, batch, number) for number, message in enumerate(messages, 1))
    for message in first:
        # Unanswered: what is wrong with it, the answer to the last one says.
        await connection.publish(message.subject, message.data, headers=message.headers)

    headers = {**last.headers, "Nats-Batch-Commit": "1"}
    reply = await connection.request(last.subject, last.data, timeout=timeout, headers=headers)
    return parse_pub_ack(last.subject, reply)


def _numbered(message: BatchMessage, batch: str, number: int) -> BatchMessage:
    ours = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
    return message._replace(headers={**message.headers, **ours})
