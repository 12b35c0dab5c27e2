"""Server URLs: read them, and print them without their secrets."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import UsageError

__all__ = ("Server", "is_ip", "parse_url", "without_secrets")

_PORTS = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}
_TLS_SCHEMES = ("tls", "wss")
_WEBSOCKET_SCHEMES = ("ws", "wss")
_LOOKS_LIKE = "a server URL looks like nats://host:4222, tls://user:password@host, nats://token@host or ws://host:8080/path"


@dataclass(eq=False)
class Server:
    """One server we may connect to. Its text and repr never show who connects, only where to."""

    scheme: str
    host: str
    port: int
    path: str = "/"
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls_name: str | None = None
    discovered: bool = False
    over_tls: bool = False
    """Whether TLS was spoken with it once: servers that it names are held to that."""

    tls_or_nothing: bool = False
    failures: int = 0
    last_refusal: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """`host:port`, as URLs and HTTP write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def wants_tls(self) -> bool:
        return self.scheme in _TLS_SCHEMES

    @property
    def is_websocket(self) -> bool:
        return self.scheme in _WEBSOCKET_SCHEMES


def parse_url(url: str) -> Server:
    """Read `nats://user:password@host:port`, `nats://token@host`, `tls://…`, `ws://host/path`, or bare `host:port`.

    User, password and token may be percent-encoded, and must be where they contain `/`, `?` or `#`.

    Raises:
        UsageError: no such scheme, no host, no port number, or more than an address.
    """
    shown = without_secrets(url)
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
    except ValueError:
        # Here and below without the parser's own words: they may quote a part of the password.
        raise UsageError(f"{shown!r} is not a server URL; {_LOOKS_LIKE}") from None

    _check_parts(parts, shown)
    host = unquote(parts.hostname or "")
    server = Server(parts.scheme, host, _port(parts, shown), parts.path or "/")
    if parts.query:
        server.path += f"?{parts.query}"

    _take_user(server, parts, shown)
    return server


def _check_parts(parts: SplitResult, shown: str) -> None:
    if parts.scheme not in _PORTS:
        raise UsageError(f"{shown!r}: the scheme is one of {', '.join(_PORTS)}")

    if "@" in parts.path + parts.query + parts.fragment:
        raise UsageError(f"{shown!r}: in a password or token, write / as %2F, ? as %3F and # as %23")

    beyond = parts.fragment
    if not all("!" <= mark <= "~" for mark in parts.path + parts.query):
        beyond = parts.path
    if parts.scheme not in _WEBSOCKET_SCHEMES:
        beyond += parts.path.removeprefix("/") + parts.query

    if (
        beyond
        or not parts.hostname
        or any(mark.isspace() or not mark.isprintable() for mark in parts.hostname)
    ):
        raise UsageError(f"{shown!r} is not a server URL; {_LOOKS_LIKE}")


def _port(parts: SplitResult, shown: str) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0

    if port == 0:
        # What stands where the port should be may be the password of someone who forgot the host.
        place = shown.rpartition(":")[0]
        raise UsageError(
            f"{place!r} is followed by something that is not a port from 1 to 65535; {_LOOKS_LIKE}"
        )

    return port or _PORTS[parts.scheme]


def _take_user(server: Server, parts: SplitResult, shown: str) -> None:
    try:
        user = None if parts.username is None else unquote(parts.username, errors="strict")
        password = None if parts.password is None else unquote(parts.password, errors="strict")
    except UnicodeDecodeError:
        raise UsageError(f"{shown!r}: what is percent-encoded before the @ is not UTF-8") from None

    if password is None:
        server.token = user or None
    else:
        server.user, server.password = user, password


def without_secrets(url: str) -> str:
    """Return `url` with `***` for whatever stands before the last `@`."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, place = rest.rpartition("@")
    return f"{scheme}{mark}***@{place}" if at else url


def is_ip(host: str) -> bool:
    """Whether `host` is an address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False

    return True
