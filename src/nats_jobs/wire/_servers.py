"""The server pool: parse URLs, say which server is next, and how long to wait before it."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ..backoff import jittered
from ..errors import UsageError
from ._options import Options

__all__ = ("Server", "ServerPool", "parse_url")

_TLS_SCHEMES = ("tls", "wss")
_PORTS = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}
_FIRST_WAIT = 0.05


@dataclass(eq=False)
class Server:
    """One server we may connect to."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None
    token: str | None = None
    tls_name: str | None = None
    discovered: bool = False
    failures: int = 0
    last_refusal: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def wants_tls(self) -> bool:
        return self.scheme in _TLS_SCHEMES


class ServerPool:
    """Knows the servers and whose turn it is. Decides only; connecting is done elsewhere.

    A round goes through all servers without waiting; between two rounds there is a wait that doubles.
    """

    def __init__(self, urls: Sequence[str], options: Options) -> None:
        self._servers = [parse_url(url) for url in urls]
        self._given = len(self._servers)
        self._options = options
        self._turn = 0
        self._rounds = 0
        if not options.dont_randomize:
            random.shuffle(self._servers)

        self._last_name = next((server.host for server in self._servers if not _is_ip(server.host)), None)

    def __len__(self) -> int:
        return len(self._servers)

    def __str__(self) -> str:
        return ", ".join(map(str, self._servers))

    def next(self) -> tuple[Server, float] | None:
        """Return the server to try now and the seconds to wait before; None when all were given up."""
        if not self._servers:
            return None

        wait = 0.0
        if self._turn >= len(self._servers):
            wait = jittered(self._rounds, first=_FIRST_WAIT, most=self._options.reconnect_time_wait)
            self._turn = 0
            self._rounds += 1

        server = self._servers[self._turn]
        self._turn += 1
        return server, wait

    def connected(self, server: Server) -> None:
        """Note a success. The next round begins after this server."""
        server.failures = 0
        server.last_refusal = None
        self._rounds = 0
        if server in self._servers:
            self._servers.remove(server)
            self._servers.append(server)

        self._turn = 0

    def failed(self, server: Server, refusal: str | None = None) -> None:
        """Note a failure. `refusal` is the server's text when it did not accept who we are; the same one twice ends it."""
        server.failures += 1
        most = self._options.max_reconnect_attempts
        exhausted = 0 <= most < server.failures
        refused_again = refusal is not None and refusal == server.last_refusal
        server.last_refusal = refusal
        if exhausted or refused_again:
            self._remove(server)

    def discover(self, addresses: Iterable[str], current: Server) -> None:
        """Bring the discovered servers in line with `connect_urls`; given ones and the current one stay."""
        found = {parse_url(address).address for address in addresses}
        for server in [server for server in self._servers if server.discovered and server is not current]:
            if server.address not in found:
                self._remove(server)

        known = {server.address for server in self._servers}
        fresh = [
            Server(
                current.scheme,
                host,
                port,
                tls_name=self._last_name if _is_ip(host) else None,
                discovered=True,
            )
            for host, port in sorted(found - known)
        ]
        if not self._options.dont_randomize:
            random.shuffle(fresh)

        for server in fresh:
            # Credentials in a URL are for the whole cluster.
            server.user, server.password, server.token = current.user, current.password, current.token

        self._servers += fresh

    def _remove(self, server: Server) -> None:
        if server not in self._servers:
            return

        position = self._servers.index(server)
        del self._servers[position]
        if position < self._turn:
            self._turn -= 1


def parse_url(url: str) -> Server:
    """Read `nats://user:password@host:port`, `nats://token@host`, `tls://…`, or bare `host:port`.

    Raises:
        UsageError: no such scheme, no host, or no port number.
    """
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is no server URL: {error}") from None

    if parts.scheme not in _PORTS:
        raise UsageError(f"{url!r}: the scheme is one of {', '.join(_PORTS)}")

    if not parts.hostname or parts.path not in ("", "/"):
        raise UsageError(f"{url!r} is no server URL; it looks like nats://host:4222")

    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    server = Server(parts.scheme, parts.hostname, port or _PORTS[parts.scheme])
    if password is None:
        server.token = user
    else:
        server.user, server.password = user, password

    return server


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False

    return True
