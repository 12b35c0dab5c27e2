"""Publishing one message with the server's confirmation.

While a leader is elected the server answers 503 for 5 to 7 seconds (seen on 2.15), so a publish is
repeated, with the same message id, until its time is up.
"""

from __future__ import annotations

import anyio

from ..errors import (
    ConnectionLost,
    NatsJobsError,
    NoResponders,
    NotConfirmed,
    PublishRefused,
    RequestTimeout,
)
from ..wire import Connection
from ._confirmation import ONE_TRY, Enqueued, is_passing, pause_after, read_confirmation

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
    began = anyio.current_time()
    left = timeout
    tries = 0
    why: NatsJobsError | None = None
    while True:
        try:
            reply = await connection.request(subject, data, timeout=min(ONE_TRY, left), headers=block)
            return read_confirmation(subject, reply)
        except (NoResponders, ConnectionLost, RequestTimeout, PublishRefused) as error:
            if not is_passing(error):
                raise

            # A try that the deadline cut short tells less than the one before it.
            if why is None or not (isinstance(error, RequestTimeout) and error.seconds < ONE_TRY):
                why = error

            wait = pause_after(tries)
            tries += 1
            left = began + timeout - anyio.current_time() - wait
            if left <= 0:
                raise NotConfirmed(subject, timeout, str(why)) from error

        await anyio.sleep(wait)
