"""One at a time changes a stream.

A change replaces the whole configuration, so of two that read it at the same moment one undoes the other. Worse, when
both add the same subject, a server that is not clustered subscribes to it twice, and stores every message on it twice,
until it is restarted: so it went in about every fifth of such pairs (nats-server 2.10.26, 2.12.8 and 2.15.1).

The lock is a consumer: of several that create one, with different metadata, one succeeds, and when its owner dies the
server removes it after a while.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from ..backoff import jittered
from ..errors import ApiError, NatsJobsError, PermissionDenied
from ..units import to_ns
from ..wire import unique_token
from ._api import JetStreamApi
from ._error_codes import ErrorCode

__all__ = ("STREAM_OF_LOCKS", "changing")

logger = logging.getLogger("nats_jobs")

STREAM_OF_LOCKS = "NATS_JOBS_SETUP"
# Seconds. A change takes milliseconds; who waits longer than a lock can last has met one that is renewed by a stranger.
_LASTS = 5.0
_MAX_WAIT = 15.0
_RETRY_INTERVAL = 0.1
_RELEASE_TIMEOUT = 2.0

_HELD = (ErrorCode.CONSUMER_EXISTS, ErrorCode.CONSUMER_NAME_IN_USE)


@asynccontextmanager
async def changing(api: JetStreamApi, stream: str) -> AsyncIterator[None]:
    """Keep other processes of this library from changing `stream` in the block: read it there, and change it.

    Where the account may not have the lock, or somebody holds it for 15 seconds, the block is entered without.

    Raises:
        NoResponders, RequestTimeout, ConnectionLost: the server did not answer.
    """
    held = await _acquired(api, stream)
    try:
        yield
    finally:
        if held:
            await _release(api, stream)


async def _acquired(api: JetStreamApi, stream: str) -> bool:
    try:
        await api.create_stream(
            {"name": STREAM_OF_LOCKS, "subjects": ["nats_jobs.setup"], "storage": "memory", "max_msgs": 1}
        )
        with anyio.move_on_after(_MAX_WAIT):
            while True:
                if await _created(api, stream):
                    return True

                await anyio.sleep(jittered(0, first=_RETRY_INTERVAL, most=_RETRY_INTERVAL))

        reason = f"somebody holds it for {_MAX_WAIT:g} s"
    except (ApiError, PermissionDenied) as error:
        reason = str(error)

    logger.warning("stream %s is changed without a lock against others who change it: %s", stream, reason)
    return False


async def _created(api: JetStreamApi, stream: str) -> bool:
    lock = {
        "durable_name": stream,
        "ack_policy": "none",
        "mem_storage": True,
        "inactive_threshold": to_ns(_LASTS),
        "metadata": {"nats_jobs.holder": unique_token()},
    }
    try:
        await api.create_consumer(STREAM_OF_LOCKS, lock)
    except ApiError as error:
        if error.err_code in _HELD:
            return False

        raise

    return True


async def _release(api: JetStreamApi, stream: str) -> None:
    with anyio.move_on_after(_RELEASE_TIMEOUT, shield=True):
        try:
            await api.request(f"CONSUMER.DELETE.{STREAM_OF_LOCKS}.{stream}")
        except NatsJobsError as error:
            # The server removes it.
            logger.debug("the lock of stream %s could not be released: %s", stream, error)
