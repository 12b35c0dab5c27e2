"""Opens the TCP connection to a server. What the operating system says becomes plain words here."""

from __future__ import annotations

import os
import socket

import anyio
from anyio.abc import ByteStream

from ._urls import Server

__all__ = ("open_tcp",)


async def open_tcp(server: Server) -> ByteStream:
    """Connect to any address of the host. Cancelling it leaves no socket behind.

    Small frames leave at once: AnyIO and the event loops switch Nagle's algorithm off.

    Raises:
        ConnectionError: no address answered, or the name has none.
    """
    try:
        return await anyio.connect_tcp(server.host, server.port)
    except OSError as error:
        raise ConnectionError(_in_words(error)) from error
    except ValueError as error:
        raise ConnectionError(f"{server.host!r} is not a host name: {error}") from error


def _in_words(error: OSError) -> str:
    """Say why each address failed; AnyIO puts the reasons into the cause."""
    cause = error.__cause__ or error
    causes = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
    return "; ".join(dict.fromkeys(map(_word, causes)))


def _word(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved: {error.strerror}"

    # The event loops word the same number in different ways.
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)

    return str(error) or type(error).__name__
