"""What tests of the wire do with a connection, apart from what they test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Unpack

import anyio
from anyio.lowlevel import checkpoint

from nats_jobs.wire import Connection, ConnectOptions, connect

LIMIT = 30.0  # never waited for: only what a hanging test is given


def quick(**options: Unpack[ConnectOptions]) -> ConnectOptions:
    """Return options that reconnect soon and give a slow machine time; those given win."""
    defaults = ConnectOptions(connect_timeout=10, reconnect_time_wait=0.1)
    return defaults | options


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells of."""
    with anyio.fail_after(LIMIT):
        while not condition():
            await anyio.sleep(0.01)


async def reconnected(nc: Connection) -> None:
    """Wait until the link is up, and not the first one."""
    await until(lambda: nc.connected and nc.reconnects)


async def stay(
    url: str, change: Callable[[], Awaitable[object]] = checkpoint, **options: Unpack[ConnectOptions]
) -> None:
    """Connect, let `change` happen, and stay for what then ends the connection."""
    async with connect(url, **quick(**options)) as nc:
        await nc.flush()
        await change()
        with anyio.fail_after(LIMIT):
            await anyio.sleep_forever()


class RecordingListener:
    """Keeps what a connection tells."""

    def __init__(self) -> None:
        self.ups: list[str] = []
        self.downs: list[str] = []
        self.errors: list[str] = []

    def on_connected(self, server: str, reconnects: int) -> None:
        self.ups.append(server)

    def on_disconnected(self, server: str, reason: str) -> None:
        self.downs.append(reason)

    def on_server_error(self, server: str, reason: str) -> None:
        self.errors.append(reason)

    def on_loop_blocked(self, seconds: float) -> None:
        pass
