"""A TCP proxy that spoils the link between a client and a real server, on asyncio and Trio.

    async with run_server() as server, fault_proxy(server.url) as proxy:
        async with connect(proxy.url) as nc:
            proxy.cut()

Faults hold for open links and for those that come later, until `restore()`. They take effect at once for bytes
that were not forwarded yet. All methods but `wait_*` are plain functions: they ask, the pumps obey. A direction
is `UP` (client to server), `DOWN` (server to client) or `BOTH`.

| call | what the client sees |
|---|---|
| `cut()` | every open link is reset now; new ones are welcome |
| `refuse()` | links that come from now on are reset at once |
| `stall(direction)` | nothing is read or forwarded any more: back-pressure, as from a frozen peer |
| `swallow(direction)` | a half-open link: what is sent disappears, the socket stays writable |
| `slow(bytes_per_second)` | both directions trickle |
| `split()` | each byte in a segment of its own |
| `inject(data)` | bytes that the server never sent |
| `cut_after(count, direction)` | that many more bytes pass, then everything is reset: inside a frame, if so chosen |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from enum import Flag, auto
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint

from nats_jobs._groups import unwrapped

from .sockets import reset_when_closed

__all__ = ("BOTH", "DOWN", "UP", "Direction", "Proxy", "fault_proxy")

_CHUNK = 65536
_LIMIT = 30.0


class Direction(Flag):
    UP = auto()
    DOWN = auto()


UP, DOWN = Direction.UP, Direction.DOWN
BOTH = UP | DOWN
_NEITHER = Direction(0)


class Proxy:
    """Made by `fault_proxy`.

    Attributes:
        url: what the client connects to.
        accepted: links that were opened through it.
        refused: links that were reset as they came.
        cuts: links that were reset while they stood.
        bytes_up, bytes_down: forwarded so far.
        bytes_swallowed: read, and not forwarded.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self.accepted = self.refused = self.cuts = 0
        self.bytes_up = self.bytes_down = self.bytes_swallowed = 0
        self._pairs: set[_Pair] = set()
        self._refusing = False
        self._changed = anyio.Event()
        self._left: dict[Direction, int] = {}
        self._clear()

    @property
    def open(self) -> int:
        """Links that stand now."""
        return len(self._pairs)

    def cut(self) -> int:
        """Reset all open links; return how many there were."""
        pairs = list(self._pairs)
        self.cuts += len(pairs)
        for pair in pairs:
            pair.reset()

        return len(pairs)

    def refuse(self) -> None:
        self._refusing = True

    def stall(self, direction: Direction = BOTH) -> None:
        self._stalled |= direction
        self._tell()

    def swallow(self, direction: Direction = BOTH) -> None:
        self._swallowing |= direction
        self._tell()

    def slow(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._tell()

    def split(self) -> None:
        self._splitting = True

    def cut_after(self, count: int, direction: Direction = DOWN) -> None:
        self._left = {each: count for each in (UP, DOWN) if each in direction}

    async def inject(self, data: bytes) -> None:
        """Send `data` to every client, between two chunks of the server's."""
        for pair in list(self._pairs):
            await pair.inject(data)

    def restore(self) -> None:
        """Behave from now on. What was swallowed stays lost; what was stalled goes on."""
        self._clear()
        self._refusing = False
        self._tell()

    async def wait_accepted(self, count: int) -> None:
        """Wait until so many links have been opened since the beginning."""
        with anyio.fail_after(_LIMIT):
            while self.accepted < count:
                await self._changed.wait()

    async def wait_refused(self, count: int) -> None:
        """Wait until so many links have been refused since the beginning."""
        with anyio.fail_after(_LIMIT):
            while self.refused < count:
                await self._changed.wait()

    async def wait_open(self, count: int) -> None:
        """Wait until exactly so many links stand."""
        with anyio.fail_after(_LIMIT):
            while self.open != count:
                await self._changed.wait()

    def _clear(self) -> None:
        self._stalled = self._swallowing = _NEITHER
        self._bytes_per_second = 0.0
        self._splitting = False
        self._left = {}

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _serve(self, client: SocketStream, host: str, port: int) -> None:
        if self._refusing:
            self.refused += 1
            reset_when_closed(client)
            self._tell()
            return

        try:
            server = await anyio.connect_tcp(host, port)
        except OSError:
            # The server is down: so is what stands for it.
            self.refused += 1
            reset_when_closed(client)
            self._tell()
            return

        async with server:
            pair = _Pair(self, client, server)
            self._pairs.add(pair)
            self.accepted += 1
            self._tell()
            try:
                await pair.run()
            finally:
                self._pairs.discard(pair)
                self._tell()

    async def _pass(self, direction: Direction) -> None:
        """Wait while that direction is stalled."""
        while direction in self._stalled:
            await self._changed.wait()

    async def _forward(self, direction: Direction, data: bytes, sink: SocketStream) -> None:
        if direction in self._swallowing:
            self.bytes_swallowed += len(data)
            return

        cutting = len(data) >= self._left.get(direction, len(data) + 1)
        if cutting:
            data = data[: self._left[direction]]
        elif direction in self._left:
            self._left[direction] -= len(data)

        for piece in self._pieces(data):
            await self._pass(direction)
            await sink.send(piece)
            self._count(direction, len(piece))
            await self._trickle(len(piece))

        if cutting:
            self._left.clear()
            self.cut()

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        size = 1 if self._splitting else len(data)
        if self._bytes_per_second:
            size = min(size, max(1, int(self._bytes_per_second / 20)))

        for start in range(0, len(data), size or 1):
            yield data[start : start + size]

    async def _trickle(self, size: int) -> None:
        if not self._bytes_per_second:
            await checkpoint()
            return

        # A restore ends the wait, too.
        with anyio.move_on_after(size / self._bytes_per_second):
            while self._bytes_per_second:
                await self._changed.wait()

    def _count(self, direction: Direction, size: int) -> None:
        if direction is UP:
            self.bytes_up += size
        else:
            self.bytes_down += size


class _Pair:
    """One client and the server behind it."""

    def __init__(self, proxy: Proxy, client: SocketStream, server: SocketStream) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._scope = anyio.CancelScope()
        self._to_client = anyio.Lock()

    def reset(self) -> None:
        reset_when_closed(self._client)
        reset_when_closed(self._server)
        self._scope.cancel("cut")

    async def inject(self, data: bytes) -> None:
        async with self._to_client:
            await self._client.send(data)

    async def run(self) -> None:
        with self._scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._pump, UP, self._client, self._server)
                group.start_soon(self._pump, DOWN, self._server, self._client)

        await anyio.aclose_forcefully(self._client)
        await anyio.aclose_forcefully(self._server)

    async def _pump(self, direction: Direction, source: SocketStream, sink: SocketStream) -> None:
        try:
            while True:
                await self._proxy._pass(direction)
                data = await source.receive(_CHUNK)
                await self._proxy._pass(direction)
                if direction is UP:
                    await self._proxy._forward(direction, data, sink)
                else:
                    async with self._to_client:
                        await self._proxy._forward(direction, data, sink)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            # NATS knows no half-closed links: when one side goes, so does the other.
            self._scope.cancel("one side has closed")


@asynccontextmanager
async def fault_proxy(url: str) -> AsyncIterator[Proxy]:
    """Stand between clients and the server at `url` for as long as the block lasts."""
    target = urlsplit(url)
    assert target.hostname is not None
    assert target.port is not None
    host, port = target.hostname, target.port
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    proxy = Proxy(listener.extra(SocketAttribute.local_port))

    async def serve(client: SocketStream) -> None:
        async with client:
            await proxy._serve(client, host, port)

    # What the block raises comes out as it is.
    with unwrapped():
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            try:
                yield proxy
            finally:
                group.cancel_scope.cancel("the proxy's block was left")
