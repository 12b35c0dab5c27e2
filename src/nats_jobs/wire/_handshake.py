"""From a server's address to a link that may be used: TCP, INFO, TLS, CONNECT, PING, PONG."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import ByteStream

from .._version import __version__
from ..errors import AuthorizationFailed, MissingExtra, ProtocolError, ServerRefused, UsageError
from . import _commands
from ._auth import auth_fields
from ._info import updated
from ._options import Options
from ._parser import Err, Frame, Info, Parser, Ping, Pong
from ._tls import CLIENT_CERTIFICATE, explained, start_tls
from ._transport import open_tcp
from ._urls import Server

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
    parser: Parser = field(default_factory=Parser)
    info: dict[str, Any] = field(default_factory=dict)
    early: list[Frame] = field(default_factory=list)


async def greet(server: Server, options: Options) -> Greeted:
    """Connect to `server` and introduce ourselves, within `connect_timeout`.

    Cancelling it, or any failure, closes the socket. The texts of the errors are complete; that of the
    built-in ones does not name the server.

    Raises:
        ConnectionError, TimeoutError: no link.
        AuthorizationFailed: the server does not accept who we are.
        ServerRefused, ProtocolError: it is not a server that we can use.
        UsageError, MissingExtra: an option cannot be used; another server would not help.
    """
    greeting = _Greeting(server, options)
    try:
        with anyio.fail_after(options.connect_timeout):
            stream = await open_tcp(server)
            try:
                return await greeting.introduce(Greeted(server, stream))
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
    except TimeoutError:
        raise TimeoutError(f"no {greeting.awaited} within {options.connect_timeout:g} s") from None


class _Greeting:
    """One attempt. `awaited` is what the server owes us next."""

    def __init__(self, server: Server, options: Options) -> None:
        self.awaited = "TCP connection"
        self._server = server
        self._options = options
        self._secured = False
        self._verified = options.tls_handshake_first

    async def introduce(self, greeted: Greeted) -> Greeted:
        with self._in_words():
            await self._before_info(greeted)
            greeted.info = await self._first_info(greeted)
            await self._after_info(greeted)
            fields = _connect_fields(self._server, self._options, greeted.info)
            self.awaited = "PONG"
            await greeted.stream.send(_commands.connect(fields) + _commands.PING)
            await _first_pong(greeted)

        return greeted

    async def _before_info(self, greeted: Greeted) -> None:
        websocket = self._server.is_websocket
        if websocket and not self._server.wants_tls and _wants_tls(self._server, self._options):
            raise UsageError(f"{self._server}: TLS was asked for; the scheme for WebSocket with TLS is wss")

        if self._server.scheme == "wss" or (self._options.tls_handshake_first and not websocket):
            await self._secure(greeted)

        if websocket:
            self.awaited = "answer to the WebSocket handshake (is it the server's websocket port?)"
            greeted.stream = await _open_websocket(greeted.stream, self._server, self._options)
            # TLS, if any, is beneath it.
            self._secured = True

    async def _after_info(self, greeted: Greeted) -> None:
        self._verified = bool(greeted.info.get("tls_verify"))
        if self._secured or not _needs_tls(greeted.info, self._server, self._options):
            return

        if greeted.early or not greeted.parser.idle:
            # Somebody in between could have put it there, to be taken for what comes through TLS.
            raise ProtocolError(f"{self._server} sent data between INFO and the TLS handshake")

        await self._secure(greeted)

    async def _secure(self, greeted: Greeted) -> None:
        self.awaited = "TLS handshake"
        greeted.stream = await start_tls(greeted.stream, self._server, self._options)
        self._secured = self._server.over_tls = True

    async def _first_info(self, greeted: Greeted) -> dict[str, Any]:
        self.awaited = "INFO" if self._secured else "INFO (does the server want tls_handshake_first=True?)"
        try:
            frame = await _next_frame(greeted)
        except ProtocolError as error:
            raise ProtocolError(f"it does not begin with INFO: {error}; is it a NATS server?") from error

        match frame:
            case Info(fields):
                return fields
            case Err(text):
                raise _refusal(self._server, text)
            case _:
                raise ProtocolError(
                    f"it begins with {type(frame).__name__}, not with INFO; is it a NATS server?"
                )

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except ssl.SSLError as error:
            raise ConnectionError(explained(error)) from error
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            # With TLS 1.3 the server looks at our certificate after we are through with our part.
            hint = f"; {CLIENT_CERTIFICATE}" if self._secured and self._verified else ""
            raise ConnectionError(f"closed by the server before its {self.awaited}{hint}") from error


def _wants_tls(server: Server, options: Options) -> bool:
    return server.wants_tls or options.tls is not None or options.tls_hostname is not None


def _needs_tls(info: dict[str, Any], server: Server, options: Options) -> bool:
    if info.get("tls_required"):
        return True

    if info.get("tls_available"):
        return server.tls_or_nothing or _wants_tls(server, options)

    if _wants_tls(server, options):
        raise ConnectionError("the server offers no TLS, and TLS was asked for")

    if server.tls_or_nothing:
        raise ConnectionError(
            "the server offers no TLS, and the one that named it does; it is not sent the credentials in plain text "
            "(unless with allow_plain_discovered=True)"
        )

    return False


async def _open_websocket(stream: ByteStream, server: Server, options: Options) -> ByteStream:
    try:
        from ._websocket import open_websocket
    except ModuleNotFoundError:
        raise MissingExtra(f"{server}: WebSocket", "websocket") from None

    return await open_websocket(stream, server, options)


def _connect_fields(server: Server, options: Options, info: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        # The server takes a missing one of the first three as true.
        "verbose": False,
        "pedantic": False,
        "echo": not options.no_echo,
        "tls_required": _wants_tls(server, options),
        "lang": "python-anyio",
        "version": __version__,
        "protocol": 1,
        "headers": bool(info.get("headers")),
        "no_responders": bool(info.get("headers")),
    }
    if options.name is not None:
        fields["name"] = options.name

    nonce = info.get("nonce")
    return fields | auth_fields(server, options, nonce if isinstance(nonce, str) else "")


async def _first_pong(greeted: Greeted) -> None:
    while True:
        match await _next_frame(greeted):
            case Pong():
                return
            case Err(text):
                raise _refusal(greeted.server, text)
            case Info(fields):
                greeted.info = updated(greeted.info, fields)
            case Ping():
                await greeted.stream.send(_commands.PONG)
            case _:
                pass


async def _next_frame(greeted: Greeted) -> Frame:
    """Return one frame. What a chunk has beyond it stays in `early`."""
    while not greeted.early:
        greeted.early.extend(greeted.parser.feed(await greeted.stream.receive(_RECEIVE)))

    return greeted.early.pop(0)


def _refusal(server: Server, text: str) -> AuthorizationFailed | ServerRefused:
    if text.lower().startswith(_AUTH_ERRORS):
        return AuthorizationFailed(str(server), text)

    return ServerRefused(str(server), text)
