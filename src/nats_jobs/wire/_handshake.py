"""From a server's address to a link that may be used: TCP, INFO, TLS, CONNECT, PING, PONG (NATS.md 1.1, 1.2, 1.7)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import ByteStream

from .._version import __version__
from ..errors import AuthorizationFailed, ProtocolError, ServerRefused, UsageError
from . import _commands
from ._auth import auth_fields
from ._options import Options
from ._parser import Err, Frame, Info, Parser, Ping, Pong
from ._servers import Server
from ._transport import open_tcp, start_tls

__all__ = ("Greeted", "greet")

_RECEIVE = 65536
_AUTH_ERRORS = (
    "authorization violation",
    "user authentication expired",
    "user authentication revoked",
    "account authentication expired",
)


@dataclass
class Greeted:
    """A stream on which the server has answered our first PING, and what it said on the way."""

    server: Server
    stream: ByteStream
    parser: Parser
    info: dict[str, Any]
    early: list[Frame] = field(default_factory=list)


async def greet(server: Server, options: Options) -> Greeted:
    """Connect to `server` and introduce ourselves, within `connect_timeout`.

    Cancelling it, or any failure, closes the socket.

    Raises:
        OSError, ssl.SSLError, TimeoutError: no link.
        AuthorizationFailed: the server does not accept who we are.
        ServerRefused, ProtocolError, UsageError: it is no server for us.
    """
    if server.scheme in ("ws", "wss"):
        raise UsageError(f"{server}: WebSocket is not supported; use the server's nats:// port")

    with anyio.fail_after(options.connect_timeout):
        stream = await open_tcp(server)
        try:
            return await _introduce(server, options, stream)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise


async def _introduce(server: Server, options: Options, stream: ByteStream) -> Greeted:
    secured = options.tls_handshake_first
    if secured:
        stream = await start_tls(stream, server, options)

    greeted = Greeted(server, stream, Parser(), {})
    greeted.info = await _first_info(greeted)
    if not secured and _needs_tls(greeted.info, server, options):
        if not greeted.parser.idle:
            raise ProtocolError(f"{server} spoke between INFO and the TLS handshake")

        greeted.stream = await start_tls(stream, server, options)

    fields = _connect_fields(server, options, greeted.info)
    await greeted.stream.send(_commands.connect(fields) + _commands.PING)
    await _first_pong(greeted)
    return greeted


def _needs_tls(info: dict[str, Any], server: Server, options: Options) -> bool:
    if info.get("tls_required"):
        return True

    if not (server.wants_tls or options.tls is not None):
        return False

    if not info.get("tls_available"):
        raise ssl.SSLError(f"{server} offers no TLS, and TLS was asked for")

    return True


def _connect_fields(server: Server, options: Options, info: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        # The server takes a missing one of the first three as true.
        "verbose": False,
        "pedantic": False,
        "echo": not options.no_echo,
        "tls_required": server.wants_tls or options.tls is not None,
        "lang": "python-anyio",
        "version": __version__,
        "protocol": 1,
        "headers": bool(info.get("headers")),
        "no_responders": bool(info.get("headers")),
    }
    if options.name is not None:
        fields["name"] = options.name

    return fields | auth_fields(server, options, info.get("nonce", ""))


async def _first_info(greeted: Greeted) -> dict[str, Any]:
    match await _next_frame(greeted):
        case Info(fields):
            return fields
        case Err(text):
            raise _refusal(greeted.server, text)
        case _:
            raise ProtocolError(f"{greeted.server} does not begin with INFO; is it a NATS server?")


async def _first_pong(greeted: Greeted) -> None:
    while True:
        match await _next_frame(greeted):
            case Pong():
                return
            case Err(text):
                raise _refusal(greeted.server, text)
            case Info(fields):
                greeted.info = fields
            case Ping():
                await greeted.stream.send(_commands.PONG)
            case _:
                pass


async def _next_frame(greeted: Greeted) -> Frame:
    """Return one frame. What a chunk has beyond it stays in `early`."""
    while not greeted.early:
        try:
            chunk = await greeted.stream.receive(_RECEIVE)
        except anyio.EndOfStream:
            raise ConnectionResetError("closed by the server") from None

        greeted.early.extend(greeted.parser.feed(chunk))

    return greeted.early.pop(0)


def _refusal(server: Server, text: str) -> AuthorizationFailed | ServerRefused:
    if text.lower().startswith(_AUTH_ERRORS):
        return AuthorizationFailed(str(server), text)

    return ServerRefused(str(server), text)
