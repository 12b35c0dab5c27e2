"""Publishing messages of which all are stored, or none: nats-server 2.12 and newer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import NatsJobsError, NotConfirmed, PublishRefused
from ..wire import Connection, HeaderInput, encode_headers, unique_token
from ._error_codes import ErrorCode
from ._pub_ack import Enqueued, parse_pub_ack
from ._retrying import TRY_TIMEOUT, is_retryable, retrying

__all__ = ("MAX_BATCH", "BatchMessage", "publish_all_or_none", "publish_batch")

MAX_BATCH = 1000
"""Messages that the server takes in one batch."""


class BatchMessage(NamedTuple):
    """A message of a batch."""

    subject: str
    headers: HeaderInput
    data: bytes


async def publish_all_or_none(
    connection: Connection, messages: Sequence[BatchMessage], *, timeout: float
) -> list[Enqueued]:
    """Store `messages` as `publish_batch` does, and try again while the server cannot. Cancelling leaves it open.

    Args:
        messages: 1 to 1000, each with a message id of its own, so that they can be repeated.
        timeout: seconds for all tries together.

    Raises:
        NotConfirmed: the time is up; the reason is in it. None, or all, were stored.
        PublishRefused: none was stored. `BATCH_HAS_DUPLICATE_ID`: one had been stored before.
        PayloadTooLarge, PermissionDenied, ConnectionClosed: none was stored.
    """
    is_open = False

    async def attempt(seconds: float) -> Enqueued:
        nonlocal is_open
        try:
            return await publish_batch(connection, messages, timeout=seconds)
        except PublishRefused as error:
            if is_open and error.err_code == ErrorCode.BATCH_HAS_DUPLICATE_ID:
                # An earlier try was stored, and its answer was lost: the first message, alone, is answered where it is.
                return await _last_of(connection, messages, seconds)

            raise
        except NatsJobsError as error:
            is_open = is_open or is_retryable(error)
            raise

    subject = messages[-1].subject
    try:
        last = await retrying(attempt, timeout)
    except NatsJobsError as error:
        if not is_retryable(error):
            raise

        raise NotConfirmed(subject, timeout, str(error)) from error

    first = last.sequence - len(messages) + 1
    return [Enqueued(last.stream, first + index, False) for index in range(len(messages))]


async def _last_of(connection: Connection, messages: Sequence[BatchMessage], timeout: float) -> Enqueued:
    subject, headers, data = messages[0]
    reply = await connection.request(subject, data, timeout=timeout, headers=headers)
    first = parse_pub_ack(subject, reply)
    return first._replace(sequence=first.sequence + len(messages) - 1)


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

    last = _with(last, "Nats-Batch-Commit: 1\r\n")
    reply = await connection.request(last.subject, last.data, timeout=timeout, headers=last.headers)
    return parse_pub_ack(last.subject, reply)


def _numbered(message: BatchMessage, batch: str, number: int) -> BatchMessage:
    return _with(message, f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n")


def _with(message: BatchMessage, lines: str) -> BatchMessage:
    block = encode_headers(message.headers)
    return message._replace(headers=block[:-2] + lines.encode() + b"\r\n")
