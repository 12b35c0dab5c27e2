"""A TCP peer that follows a script: for everything a real server would never do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
from anyio.abc import SocketAttribute, SocketStream

from .sockets import reset_when_closed

INFO = b'INFO {"server_id":"scripted","headers":true,"max_payload":1048576,"proto":1}\r\n'
LIMIT = 20.0  # what a hanging test is given


class Peer:
    """One listener. It serves any number of clients, each with the script."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self.clients = 0
        self.gone = 0
        self.changed = anyio.Event()

    async def wait_all_gone(self, clients: int = 1) -> None:
        """Wait until `clients` have come, and all of them have closed their socket."""
        with anyio.fail_after(LIMIT):
            while not self.clients == self.gone >= clients:
                await self.changed.wait()

    def note(self, *, clients: int = 0, gone: int = 0) -> None:
        self.clients += clients
        self.gone += gone
        self.changed.set()
        self.changed = anyio.Event()


Script: TypeAlias = Callable[[SocketStream], Awaitable[None]]


@asynccontextmanager
async def scripted_peer(script: Script) -> AsyncIterator[Peer]:
    """Run `script` with each client; then read until that client closes."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    peer = Peer(listener.extra(SocketAttribute.local_port))

    async def serve(stream: SocketStream) -> None:
        peer.note(clients=1)
        async with stream:
            try:
                await script(stream)
                while True:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                # Closed by the client, or by the script itself.
                peer.note(gone=1)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield peer
        tasks.cancel_scope.cancel("the test is over")


async def leave(stream: SocketStream, *, reset: bool) -> None:
    """Close in order, or as a machine that crashed does."""
    if reset:
        reset_when_closed(stream)

    await anyio.aclose_forcefully(stream)


async def receive_until(stream: SocketStream, end: bytes) -> bytes:
    """Read from the client until it has sent `end`."""
    received = b""
    while end not in received:
        received += await stream.receive()

    return received
