"""Publishing one message with the server's confirmation."""

from __future__ import annotations

from ..errors import NatsJobsError, NotConfirmed
from ..wire import Connection
from ._pub_ack import Enqueued, parse_pub_ack
from ._retrying import is_retryable, retrying

__all__ = ("publish",)


async def publish(
    connection: Connection, subject: str, block: bytes, data: bytes, *, timeout: float
) -> Enqueued:
    """Publish one message and wait until it is stored. Cancelling leaves open whether it was.

    Args:
        block: its encoded headers, with a message id so that it can be repeated.
        timeout: seconds for all tries together.

    Raises:
        NotConfirmed: the time is up; the reason is in it.
        PublishRefused: the server will not store it.
        PayloadTooLarge, PermissionDenied, ConnectionClosed: nothing was stored.
    """

    async def attempt(seconds: float) -> Enqueued:
        reply = await connection.request(subject, data, timeout=seconds, headers=block)
        return parse_pub_ack(subject, reply)

    try:
        return await retrying(attempt, timeout)
    except NatsJobsError as error:
        if not is_retryable(error):
            raise

        raise NotConfirmed(subject, timeout, str(error)) from error
