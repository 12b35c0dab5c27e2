"""Which troubles of JetStream go away by themselves, and how often to ask again.

While a leader is elected the server answers 503 for 5 to 7 seconds (seen on 2.15).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from ..backoff import jittered
from ..errors import ApiError, ConnectionLost, NatsJobsError, NoResponders, PublishRefused, RequestTimeout
from ._error_codes import ErrorCode

__all__ = ("TRY_TIMEOUT", "is_retryable", "retry_delay", "retrying")

T = TypeVar("T")

# Seconds for one try. A core subscriber on the subject hides the 503: then there is only silence (nats.go issue 1781).
TRY_TIMEOUT = 5.0
_MIN_TRY_TIMEOUT = 0.1
_MIN_DELAY = 0.05
_MAX_DELAY = 1.0

_UNAVAILABLE = 503
# What a leader election, an overload, a copy of the same message under way, or a batch that a broken link cut answer.
_RETRYABLE_CODES = frozenset(
    (
        ErrorCode.CLUSTER_NOT_AVAILABLE,
        ErrorCode.INSUFFICIENT_RESOURCES,
        ErrorCode.DUPLICATE_IN_PROCESS,
        ErrorCode.LAST_SEQUENCE_UNAVAILABLE,
        ErrorCode.TOO_MANY_REQUESTS,
        ErrorCode.BATCH_INCOMPLETE,
        ErrorCode.TOO_MANY_BATCHES,
    )
)


async def retrying(attempt: Callable[[float], Awaitable[T]], timeout: float) -> T:
    """Return what `attempt` returns, and make it again while its trouble is one that goes away.

    Args:
        attempt: safe to repeat. It is given the seconds that this try may take.
        timeout: seconds for all tries together; with 0 there is one try.

    Raises:
        NatsJobsError: what `attempt` raised, when it is not retryable; when the time is up, the last
            retryable error that was not merely cut short.
    """
    deadline = anyio.current_time() + timeout
    telling: NatsJobsError | None = None
    tries = 0
    while True:
        left = deadline - anyio.current_time()
        try:
            return await attempt(max(_MIN_TRY_TIMEOUT, min(TRY_TIMEOUT, left)))
        except NatsJobsError as error:
            if not is_retryable(error):
                raise

            # A try that the deadline cut short tells less than the one before it.
            if telling is None or not (isinstance(error, RequestTimeout) and error.seconds < TRY_TIMEOUT):
                telling = error

            wait = retry_delay(tries)
            if anyio.current_time() + wait >= deadline:
                raise telling from None

        tries += 1
        await anyio.sleep(wait)


def is_retryable(error: Exception) -> bool:
    """Whether the same request or publish may be taken a moment later."""
    if isinstance(error, ApiError):
        return error.err_code in _RETRYABLE_CODES or (error.code == _UNAVAILABLE and not error.err_code)

    if isinstance(error, PublishRefused):
        return error.err_code in _RETRYABLE_CODES

    return isinstance(error, NoResponders | ConnectionLost | RequestTimeout)


def retry_delay(tries: int) -> float:
    """Return the seconds to wait before the next try; `tries` counts from 0."""
    return jittered(tries, first=_MIN_DELAY, most=_MAX_DELAY)
