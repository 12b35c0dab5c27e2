"""The fault proxy does what it says: what the other tests see is the connection's doing, not the proxy's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketStream

from support.connections import LIMIT
from support.jobs import until
from support.peer import scripted_peer
from support.proxy import BOTH, DOWN, UP, Direction, Proxy, fault_proxy

pytestmark = pytest.mark.anyio


async def echo(stream: SocketStream) -> None:
    while True:
        await stream.send(await stream.receive())


async def hang_up(stream: SocketStream) -> None:
    await stream.aclose()


@asynccontextmanager
async def through() -> AsyncIterator[tuple[Proxy, SocketStream]]:
    """A client of a proxy before a server that echoes."""
    async with scripted_peer(echo) as peer, fault_proxy(peer.url) as proxy:
        async with await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
            await proxy.wait_accepted(1)
            yield proxy, stream


async def received(stream: SocketStream, count: int) -> bytes:
    data = b""
    with anyio.fail_after(LIMIT):
        while len(data) < count:
            data += await stream.receive()

    return data


async def is_reset(stream: SocketStream) -> None:
    with anyio.fail_after(LIMIT), pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
        while True:
            await stream.receive()


async def test_without_faults_bytes_pass_and_are_counted() -> None:
    async with through() as (proxy, stream):
        await stream.send(bytes(100_000))
        assert await received(stream, 100_000) == bytes(100_000)
        # Counted once they are sent, which the receiver may see first.
        await until(lambda: (proxy.bytes_up, proxy.bytes_down) == (100_000, 100_000))
        assert (proxy.open, proxy.accepted) == (1, 1)


async def test_a_cut_resets_what_is_open_and_refuses_nothing() -> None:
    async with through() as (proxy, stream):
        assert proxy.cut() == 1
        await is_reset(stream)
        await proxy.wait_open(0)
        async with await anyio.connect_tcp("127.0.0.1", proxy.port) as another:
            await another.send(b"x")
            assert await received(another, 1) == b"x"

        assert (proxy.cuts, proxy.accepted, proxy.refused) == (1, 2, 0)


async def test_refusing_leaves_what_is_open() -> None:
    async with through() as (proxy, stream):
        proxy.refuse()
        async with await anyio.connect_tcp("127.0.0.1", proxy.port) as another:
            await is_reset(another)

        await proxy.wait_refused(1)
        await stream.send(b"x")
        assert await received(stream, 1) == b"x"


@pytest.mark.parametrize("direction", [UP, DOWN, BOTH])
async def test_what_is_stalled_goes_on_afterwards(direction: Direction) -> None:
    async with through() as (proxy, stream):
        proxy.stall(direction)
        await stream.send(b"x")
        with anyio.move_on_after(0.05):
            pytest.fail(f"{await stream.receive()!r} came through")

        proxy.restore()
        assert await received(stream, 1) == b"x"


@pytest.mark.parametrize("direction", [UP, DOWN, BOTH])
async def test_what_is_swallowed_is_lost(direction: Direction) -> None:
    async with through() as (proxy, stream):
        proxy.swallow(direction)
        await stream.send(b"lost")
        with anyio.fail_after(LIMIT):
            while not proxy.bytes_swallowed:
                await anyio.sleep(0.001)

        proxy.restore()
        await stream.send(b"here")
        assert await received(stream, 4) == b"here"
        assert proxy.bytes_swallowed == 4


async def test_split_and_slow_links_change_no_byte() -> None:
    async with through() as (proxy, stream):
        proxy.split()
        await stream.send(bytes(range(256)))
        assert await received(stream, 256) == bytes(range(256))
        proxy.restore()
        proxy.slow(2000)
        began = anyio.current_time()
        await stream.send(bytes(200))
        assert await received(stream, 200) == bytes(200)
        assert anyio.current_time() - began > 0.05


@pytest.mark.parametrize("direction", [UP, DOWN])
async def test_it_cuts_after_exactly_so_many_bytes(direction: Direction) -> None:
    async with through() as (proxy, stream):
        proxy.cut_after(7, direction)
        await stream.send(b"abcde")
        assert await received(stream, 5) == b"abcde"
        await stream.send(b"fghij")
        await is_reset(stream)
        assert (proxy.bytes_up if direction is UP else proxy.bytes_down) == 7


async def test_what_is_injected_comes_from_nobody() -> None:
    async with through() as (proxy, stream):
        await proxy.inject(b"garbage")
        assert await received(stream, 7) == b"garbage"
        assert proxy.bytes_down == 0


async def test_when_the_server_goes_so_does_the_client() -> None:
    async with scripted_peer(hang_up) as peer, fault_proxy(peer.url) as proxy:
        async with await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
            await is_reset(stream)


async def test_with_no_server_behind_it_refuses() -> None:
    async with fault_proxy("nats://127.0.0.1:1") as proxy:
        async with await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
            await is_reset(stream)
            assert proxy.refused == 1


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with fault_proxy("nats://127.0.0.1:1"):
            raise ZeroDivisionError
