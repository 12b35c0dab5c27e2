"""The server pool: which server is next, and how long to wait before it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence

from ..backoff import jittered
from ..errors import UsageError
from ._options import Options
from ._urls import Server, is_ip, parse_url

__all__ = ("Server", "ServerPool", "parse_url")

_FIRST_WAIT = 0.05
# Also when no wait was asked for: trying without a pause would take the processor for itself.
_MIN_WAIT = 0.01


class ServerPool:
    """Knows the servers and whose turn it is. Decides only; connecting is done elsewhere.

    A round goes through all servers without waiting; between two rounds there is a wait that doubles. It
    starts small again after a link that lasted longer than the longest wait: a server that takes us and
    throws us out at once is a failing one.
    """

    def __init__(
        self, urls: Sequence[str], options: Options, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._servers = _distinct(map(parse_url, urls))
        self._options = options
        self._clock = clock
        self._turn = 0
        self._rounds = 0
        self._linked_at: float | None = None
        names = [server.host for server in self._servers if not is_ip(server.host)]
        self._last_name = names[-1] if names else None
        self._shuffle(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    def __str__(self) -> str:
        return ", ".join(map(str, self._servers))

    def next(self) -> tuple[Server, float] | None:
        """Return the server to try now and the seconds to wait before; None when all were given up.

        A wait above 0 means that a new round begins.
        """
        if not self._servers:
            return None

        wait = self._wait_due()
        server = self._servers[self._turn]
        self._turn += 1
        return server, wait

    def connected(self, server: Server) -> None:
        """Note a success. The next round ends with this server."""
        server.failures = 0
        server.last_refusal = None
        if server in self._servers:
            self._servers.remove(server)
            self._servers.append(server)

        self._turn = 0
        self._linked_at = self._clock()

    def failed(self, server: Server, refusal: str | None = None) -> None:
        """Note a failure. `refusal` is the server's text when it did not accept who we are; the same one twice ends it."""
        server.failures += 1
        exhausted = 0 <= self._options.max_reconnect_attempts <= server.failures
        refused_again = refusal is not None and refusal == server.last_refusal
        server.last_refusal = refusal
        if exhausted or refused_again:
            self._remove(server)

    def discover(self, addresses: object, current: Server) -> None:
        """Bring the discovered servers in line with `connect_urls`; given ones and the current one stay.

        What is not an address is ignored: a server's mistake must not end the connection to it.
        """
        found = {server.address: server for server in _readable(addresses, current.scheme)}
        if not found:
            return

        for server in [server for server in self._servers if server.discovered and server is not current]:
            if server.address not in found:
                self._remove(server)

        known = {server.address for server in (*self._servers, current)}
        fresh = [server for address, server in found.items() if address not in known]
        for server in fresh:
            self._inherit(server, current)

        self._shuffle(fresh)
        self._insert(fresh, current)

    def _inherit(self, server: Server, current: Server) -> None:
        """Let a discovered server have what holds for the whole cluster: the credentials of the URL, and the name."""
        server.discovered = True
        server.tls_or_nothing = (
            current.over_tls or current.tls_or_nothing
        ) and not self._options.allow_plain_discovered
        server.path = current.path
        server.user, server.password, server.token = current.user, current.password, current.token
        if is_ip(server.host):
            # A certificate rarely has addresses; the one who told us of it is known by a name: nats.go does the same.
            server.tls_name = current.tls_name or (self._last_name if is_ip(current.host) else current.host)

    def _insert(self, fresh: list[Server], current: Server) -> None:
        # Before the current one, which is the last to be tried when its link breaks.
        end = self._servers.index(current) if current in self._servers else len(self._servers)
        place = max(self._turn, end)
        self._servers[place:place] = fresh

    def _wait_due(self) -> float:
        if self._linked_at is not None:
            lasted = self._clock() - self._linked_at >= self._options.reconnect_time_wait
            self._linked_at = None
            if lasted:
                self._rounds = 0
                return 0.0

        elif self._turn < len(self._servers):
            return 0.0

        self._turn = 0
        return self._wait_between_rounds()

    def _wait_between_rounds(self) -> float:
        most = max(self._options.reconnect_time_wait, _MIN_WAIT)
        # Who was refused is asked again late, and only once: credentials take time to be renewed.
        refused = any(server.last_refusal for server in self._servers)
        wait = jittered(self._rounds, first=most if refused else _FIRST_WAIT, most=most)
        self._rounds += 1
        return wait

    def _shuffle(self, servers: list[Server]) -> None:
        if not self._options.dont_randomize:
            random.shuffle(servers)

    def _remove(self, server: Server) -> None:
        if server not in self._servers:
            return

        position = self._servers.index(server)
        del self._servers[position]
        if position < self._turn:
            self._turn -= 1


def _distinct(servers: Iterable[Server]) -> list[Server]:
    found: dict[tuple[str, int], Server] = {}
    for server in servers:
        found.setdefault(server.address, server)

    return list(found.values())


def _readable(addresses: object, scheme: str) -> list[Server]:
    servers = []
    for address in addresses if isinstance(addresses, list) else []:
        if isinstance(address, str):
            try:
                servers.append(parse_url(f"{scheme}://{address}"))
            except UsageError:
                continue

    return servers
