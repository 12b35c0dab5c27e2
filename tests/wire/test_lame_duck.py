"""A server that announces its end is left in order: first another one is found, then nothing is lost needlessly."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketStream

from nats_jobs.errors import ConnectionLost
from nats_jobs.server import Server, run_server
from nats_jobs.wire import Connection, Subscription, connect
from support.connections import LIMIT, RecordingListener, quick, until
from support.peer import scripted_peer
from support.servers import free_port

pytestmark = pytest.mark.anyio


def brief_server() -> AbstractAsyncContextManager[Server]:
    """One that announced its end does not listen to SIGTERM any more: it would be waited for in vain."""
    return run_server(jetstream=False, stop_timeout=0.1)


def announce_end(server: Server) -> None:
    server.signal(signal.SIGUSR2)


@asynccontextmanager
async def about_to_move(name: str) -> AsyncIterator[tuple[Server, Connection, Subscription]]:
    """A server, a connection to it that knows of another one, and what somebody on the first hears on `name`."""
    async with (
        brief_server() as first,
        brief_server() as second,
        connect(first.url, **quick()) as other,
        connect([first.url, second.url], **quick(dont_randomize=True)) as nc,
        other.subscribe(name) as requests,
    ):
        await other.flush()
        yield first, nc, requests


async def told(nc: Connection) -> None:
    """Wait until the server has said that it is about to end."""
    await until(lambda: nc.server_info.get("ldm") or nc.reconnects)


async def test_the_connection_moves_to_another_server_before_it_is_thrown_out(name: str) -> None:
    listener = RecordingListener()
    async with brief_server() as first, brief_server() as second:
        urls = [first.url, second.url]
        async with (
            connect(urls, listener=listener, **quick(dont_randomize=True)) as nc,
            nc.subscribe(name) as messages,
        ):
            announce_end(first)
            await until(lambda: listener.ups == urls)
            await nc.publish(name, b"from the second")
            with anyio.fail_after(LIMIT):
                assert (await messages.receive()).data == b"from the second"

            assert nc.reconnects == 1
            assert listener.downs == [f"the server is shutting down; moved to {second.url}"]
            assert first.running


async def test_requests_under_way_are_still_answered_while_it_moves(name: str) -> None:
    async with about_to_move(name) as (first, nc, requests):
        answers: list[bytes] = []

        async def ask() -> None:
            answers.append((await nc.request(name, timeout=LIMIT)).data)

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                message = await requests.receive()
                announce_end(first)
                # The new link stands, and waits for the old one's last answers.
                await until(lambda: not nc.connected)
                assert nc.reconnects == 0
                await message.respond(b"in time")

        assert answers == [b"in time"]
        await until(lambda: nc.connected)
        assert nc.reconnects == 1


async def test_the_counts_do_not_go_back_while_it_moves(name: str) -> None:
    async with about_to_move(name) as (first, nc, requests):
        for _ in range(10):
            await nc.publish(name)

        await nc.flush()
        before = nc.statistics()
        nc.lowlevel.request_nowait(name, b"", lambda reply: None)
        for _ in range(11):
            await requests.receive()

        announce_end(first)
        await until(lambda: not nc.connected)
        assert nc.reconnects == 0
        between = nc.statistics()
        await until(lambda: nc.connected)
        await nc.publish(name)
        await nc.flush()
        after = nc.statistics()

    for earlier, later in ((before, between), (between, after)):
        assert earlier.bytes_in < later.bytes_in
        assert earlier.bytes_out < later.bytes_out

    assert before.round_trip
    assert between.round_trip
    assert [each.messages_out for each in (before, between, after)] == [10, 11, 12]


async def test_a_request_that_is_not_answered_does_not_keep_it_for_ever(name: str) -> None:
    async with about_to_move(name) as (first, nc, requests):
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(_ask_in_vain, nc, name)
                await requests.receive()
                announce_end(first)

        await nc.wait_connected()
        await nc.flush()
        assert nc.reconnects == 1


async def _ask_in_vain(nc: Connection, subject: str) -> None:
    with pytest.raises(ConnectionLost, match="shutting down"):
        await nc.request(subject, timeout=1000)


async def test_publishes_go_on_while_it_moves(name: str) -> None:
    async with brief_server() as first, brief_server() as second:
        urls = [first.url, second.url]
        async with (
            connect(first.url, **quick()) as on_first,
            connect(second.url, **quick()) as on_second,
            connect(urls, **quick(dont_randomize=True)) as nc,
            on_first.subscribe(name) as one,
            on_second.subscribe(name) as two,
        ):
            await on_first.flush()
            await on_second.flush()
            announce_end(first)
            count = 0
            with anyio.fail_after(LIMIT):
                while count < 1000 or not nc.reconnects:
                    await nc.publish(name, b"%d" % count)
                    await anyio.lowlevel.checkpoint()
                    count += 1

            await nc.flush()
            await on_first.flush()
            await on_second.flush()
            await one.drain()
            await two.drain()
            received = [int(message.data) async for message in one]
            received += [int(message.data) async for message in two]

    assert received == list(range(count))


async def test_with_no_other_server_it_stays_and_comes_back(name: str) -> None:
    listener = RecordingListener()
    async with brief_server() as server, connect(server.url, listener=listener, **quick()) as nc:
        announce_end(server)
        await told(nc)
        await nc.flush()
        assert not listener.downs
        server.kill()
        await server.restart()
        await until(lambda: nc.connected and nc.reconnects)
        await nc.flush()


async def test_with_no_other_server_that_answers_it_stays(name: str) -> None:
    listener = RecordingListener()
    async with brief_server() as server:
        urls = [server.url, f"nats://127.0.0.1:{free_port()}"]
        async with connect(urls, listener=listener, **quick(dont_randomize=True)) as nc:
            announce_end(server)
            await told(nc)
            for _ in range(5):
                await nc.flush()

            assert not listener.downs


async def test_it_can_be_left_in_the_middle_of_moving() -> None:
    async def mute(stream: SocketStream) -> None:
        pass

    async with brief_server() as server, scripted_peer(mute) as peer:
        with anyio.fail_after(LIMIT):
            async with connect([server.url, peer.url], dont_randomize=True, connect_timeout=1000) as nc:
                announce_end(server)
                await until(lambda: peer.clients)
                await nc.flush()

        await peer.wait_all_gone()


async def test_without_reconnecting_it_stays() -> None:
    async with (
        brief_server() as first,
        brief_server() as second,
        connect([first.url, second.url], dont_randomize=True, allow_reconnect=False) as nc,
    ):
        announce_end(first)
        await told(nc)
        await nc.flush()
