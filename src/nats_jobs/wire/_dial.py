"""Finds a server that takes us: one after the other, in the order and with the pauses that the pool says."""

from __future__ import annotations

import anyio

from ..errors import (
    AuthorizationFailed,
    ConnectFailed,
    MissingExtra,
    NatsJobsError,
    ServerRefused,
    UsageError,
)
from ._handshake import Greeted, greet
from ._options import Options
from ._servers import ServerPool
from ._urls import Server

__all__ = ("dial",)


async def dial(
    pool: ServerPool, options: Options, *, first: bool = False, avoid: Server | None = None
) -> Greeted:
    """Return a greeted stream. Cancelling it leaves no socket behind.

    Args:
        first: try each server once only, and take a wrong option for what it is.
        avoid: a server that shall not be tried.

    Raises:
        AuthorizationFailed: none is left to try, and that is what all of them said.
        ConnectFailed: none is left to try.
        UsageError, MissingExtra: with `first`, an option cannot be used.
    """
    failures: dict[str, Exception] = {}
    while True:
        turn = pool.next()
        if turn is None or (first and turn[1] > 0):
            raise _none_left(failures)

        server, wait = turn
        await anyio.sleep(wait)
        if server is avoid:
            continue

        try:
            greeted = await greet(server, options)
        except AuthorizationFailed as error:
            pool.failed(server, error.reason)
            failures[str(server)] = error
        except (OSError, NatsJobsError) as error:
            if first and isinstance(error, UsageError | MissingExtra):
                # Later it may be a file that is just being renewed.
                raise

            pool.failed(server)
            failures[str(server)] = error
        else:
            pool.connected(server)
            return greeted


def _none_left(failures: dict[str, Exception]) -> NatsJobsError:
    """Say why no server is left to try: what each of them said last."""
    last = next(reversed(failures.values()), None)
    if isinstance(last, AuthorizationFailed) and all(
        isinstance(error, AuthorizationFailed) for error in failures.values()
    ):
        return last

    return ConnectFailed(tuple((server, _reason(error)) for server, error in failures.items()))


def _reason(error: Exception) -> str:
    # These two would name the server once more.
    return error.reason if isinstance(error, AuthorizationFailed | ServerRefused) else str(error)
