"""How a connection is opened, and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Unpack

import anyio

from .._groups import outliving_group, unwrapped
from ..errors import ConnectionClosed, ConnectionLost
from ._connection import Connection
from ._listener import ConnectionListener, NullListener
from ._options import ConnectOptions, Options, server_urls
from ._reconnect import keep_connected
from ._servers import ServerPool
from ._session import Session

__all__ = ("connect",)


@asynccontextmanager
async def connect(
    servers: str | Sequence[str] | None = None,
    *,
    listener: ConnectionListener | None = None,
    **options: Unpack[ConnectOptions],
) -> AsyncIterator[Connection]:
    """Connect to a NATS server; use the connection inside the block.

    Its tasks live in the block. Leaving it sends what is queued (at most `drain_timeout` seconds, also when
    the block is cancelled) and closes the socket. A broken link is mended in the background; when no server
    is left to try, the block is cancelled and `ConnectFailed` raised out of it.

    Args:
        servers: URL or list of URLs; default `$NATS_URL`, else nats://127.0.0.1:4222.
        listener: told when the connection to a server comes and goes.
        **options: see `Options`.

    Raises:
        UsageError: a URL or an option that cannot work.
        ConnectFailed: no server answered; each was tried once.
        AuthorizationFailed: the server does not accept who we are.
        ConnectionLost: the link broke, with `allow_reconnect=False`.
    """
    built = Options.build(options)
    session = Session(ServerPool(server_urls(servers), built), built, listener or NullListener())
    with _ends_with_one_error(session):
        # The tasks outlive a cancellation of the block until it is left: those who clean up need the link.
        async with outliving_group("the connection's block was left") as group:
            await group.start(keep_connected, session)
            group.start_soon(session.pulse.beat, session.ensure_ping)
            try:
                yield Connection(session)
            finally:
                with anyio.move_on_after(built.drain_timeout + 1, shield=True):
                    await session.wind_down()


@contextmanager
def _ends_with_one_error(session: Session) -> Iterator[None]:
    """Raise why the connection ended for good as one error, also when the block met it, or what follows from it, too."""
    try:
        with unwrapped():
            yield
        return
    except BaseExceptionGroup as group:
        failure = session.failure
        if failure is None or group.split(lambda error: _follows_from(error, failure))[1] is not None:
            raise

    # Outside the except block, or the group would come along as its context.
    raise failure


def _follows_from(error: BaseException, failure: Exception) -> bool:
    return isinstance(error, ConnectionLost | ConnectionClosed | type(failure))
