"""A link that is cut, stalled, half-open, slow or full of garbage: the connection notices and finds its way back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Unpack

import anyio
import pytest

from nats_jobs.errors import ConnectionLost, NoResponders, RequestTimeout
from nats_jobs.server import run_server
from nats_jobs.wire import Connection, ConnectOptions, Statistics, connect
from support.connections import LIMIT, RecordingListener, quick, until
from support.proxy import BOTH, DOWN, UP, Direction, Proxy, fault_proxy

pytestmark = pytest.mark.anyio

FAULTS = [
    "cut",
    "refuse",
    "stall up",
    "stall down",
    "swallow",
    "slow",
    "split",
    "garbage",
    "cut inside a frame",
]


@asynccontextmanager
async def through_proxy(
    url: str, listener: RecordingListener | None = None, **options: Unpack[ConnectOptions]
) -> AsyncIterator[tuple[Connection, Proxy]]:
    async with fault_proxy(url) as proxy, connect(proxy.url, listener=listener, **quick(**options)) as nc:
        yield nc, proxy


async def spoil(proxy: Proxy, fault: str) -> None:
    match fault:
        case "cut":
            proxy.cut()
        case "refuse":
            proxy.refuse()
            proxy.cut()
            await proxy.wait_refused(2)
        case "stall up":
            proxy.stall(UP)
        case "stall down":
            proxy.stall(DOWN)
        case "swallow":
            proxy.swallow()
        case "slow":
            proxy.slow(2000)
        case "split":
            proxy.split()
        case "garbage":
            await proxy.inject(b"\r\nHELLO\x00WORLD\r\n")
        case _:
            proxy.cut_after(37, BOTH)


async def alive_again(nc: Connection, subject: str) -> bytes:
    """Send until something arrives: a message is gone when the link breaks before it left."""
    async with nc.subscribe(subject) as messages:
        with anyio.fail_after(LIMIT):
            while True:
                await nc.publish(subject, b"alive", timeout=LIMIT)
                with anyio.move_on_after(0.2):
                    return (await messages.receive()).data


def came_back(nc: Connection, before: int) -> bool:
    return nc.connected and nc.reconnects > before


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_happens_to_the_link_it_is_alive_afterwards(url: str, name: str, fault: str) -> None:
    async with (
        through_proxy(url, ping_interval=0.2, drain_timeout=1) as (nc, proxy),
        nc.subscribe(name) as old,
    ):
        await nc.flush()
        await spoil(proxy, fault)
        with anyio.move_on_after(0.5), suppress(ConnectionLost):
            await nc.publish(name, b"maybe")
            await nc.flush()

        proxy.restore()
        assert await alive_again(nc, f"{name}.new") == b"alive"
        with anyio.fail_after(LIMIT):
            while True:
                await nc.publish(name, b"old")
                with anyio.move_on_after(0.2):
                    while (await old.receive()).data != b"old":
                        pass

                    break


@pytest.mark.parametrize("direction", [UP, DOWN, BOTH])
async def test_a_half_open_peer_is_noticed(url: str, name: str, direction: Direction) -> None:
    listener = RecordingListener()
    async with through_proxy(url, listener, ping_interval=0.1) as (nc, proxy):
        proxy.swallow(direction)
        await until(lambda: listener.downs)
        assert listener.downs[0] == "stale: no answer to 2 pings"
        proxy.restore()
        # A greeting that was swallowed need not be waited for.
        proxy.cut()
        assert await alive_again(nc, name) == b"alive"


async def test_a_peer_that_talks_and_never_answers_is_noticed(url: str, name: str) -> None:
    listener = RecordingListener()
    async with through_proxy(url, listener, ping_interval=0.05, max_outstanding_pings=1) as (nc, proxy):
        # From now on every PONG is taken for a part of this message.
        await proxy.inject(b"MSG a 1 1000000\r\n")
        await until(lambda: listener.downs)
        assert "though bytes come" in listener.downs[0] or "stale" in listener.downs[0]
        assert await alive_again(nc, name) == b"alive"


async def test_a_send_that_is_stuck_is_noticed_while_the_server_still_talks(url: str, name: str) -> None:
    listener = RecordingListener()
    async with (
        connect(url) as other,
        through_proxy(url, listener, ping_interval=0.2, pending_size=1000) as (nc, proxy),
        nc.subscribe(name) as messages,
    ):
        await nc.flush()
        proxy.stall(UP)

        async def fill() -> None:
            while not listener.downs:
                await nc.publish("filler", bytes(1_000_000))

        async def keep_talking() -> None:
            while not listener.downs:
                await other.publish(name, b"still here")
                await messages.receive()

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(fill)
                group.start_soon(keep_talking)
                await until(lambda: listener.downs)
                group.cancel_scope.cancel("noticed")

        assert listener.downs == ["a send has been stuck for 0.4 s"]


async def test_a_quiet_link_is_not_taken_for_a_dead_one(url: str) -> None:
    listener = RecordingListener()
    async with through_proxy(url, listener, ping_interval=0.1, max_outstanding_pings=50) as (nc, proxy):
        before = proxy.bytes_down
        await until(lambda: proxy.bytes_down >= before + 10 * len(b"PONG\r\n"))
        assert not listener.downs
        assert nc.statistics().round_trip is not None


async def test_outstanding_requests_fail_at_once_when_the_link_breaks(url: str, name: str) -> None:
    lost: list[str] = []

    async def ask() -> None:
        with pytest.raises(ConnectionLost) as caught:
            await nc.request(name, timeout=1000)

        lost.append(str(caught.value))

    async with connect(url) as other, other.subscribe(name), through_proxy(url) as (nc, proxy):
        await other.flush()
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(ask)

                await until(lambda: nc.statistics().messages_out == 20)
                proxy.refuse()
                proxy.cut()

        assert len(lost) == 20
        assert "may or may not have taken effect" in lost[0]
        assert not len(nc.lowlevel.requests)


async def test_a_flush_fails_at_once_when_the_link_breaks(url: str) -> None:
    async with through_proxy(url) as (nc, proxy):
        proxy.stall(UP)
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(_fails_with_loss, nc)
                await anyio.wait_all_tasks_blocked()
                proxy.cut()


async def _fails_with_loss(nc: Connection) -> None:
    with pytest.raises(ConnectionLost):
        await nc.flush(1000)


async def test_a_flush_is_answered_by_its_own_pong_and_by_no_other(url: str) -> None:
    async with through_proxy(url, ping_interval=0.05, max_outstanding_pings=1000) as (nc, proxy):
        proxy.stall(DOWN)
        link = nc.lowlevel.link
        assert link is not None
        await until(lambda: len(link._owed) >= 3)
        with pytest.raises(RequestTimeout):
            await nc.flush(0.05)

        owed = len(link._owed)
        proxy.restore()
        await nc.flush()
        assert owed >= 4
        assert nc.reconnects == 0


async def test_publishes_wait_while_the_link_is_down_and_arrive_afterwards(url: str, name: str) -> None:
    async with connect(url) as other, other.subscribe(name) as messages, through_proxy(url) as (nc, proxy):
        await other.flush()
        proxy.refuse()
        proxy.cut()
        await until(lambda: not nc.connected)
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(nc.publish, name, b"%d" % number)

            await anyio.wait_all_tasks_blocked()
            proxy.restore()

        with anyio.fail_after(LIMIT):
            assert {int((await messages.receive()).data) for _ in range(100)} == set(range(100))


async def test_a_publish_waits_for_the_link_only_so_long(url: str, name: str) -> None:
    async with through_proxy(url) as (nc, proxy):
        proxy.refuse()
        proxy.cut()
        await until(lambda: not nc.connected)
        with anyio.fail_after(LIMIT), pytest.raises(ConnectionLost, match=r"not reconnected within 0\.05 s"):
            await nc.publish(name, timeout=0.05)

        with pytest.raises(ConnectionLost, match="reconnecting"):
            nc.lowlevel.publish_nowait(name, "", b"", b"")

        with pytest.raises(ConnectionLost, match="reconnecting"):
            nc.lowlevel.request_nowait(name, b"", lambda reply: None)

        proxy.restore()


async def test_what_is_half_sent_when_the_link_breaks_is_not_sent_again(url: str, name: str) -> None:
    async with connect(url) as other, other.subscribe(name) as messages, through_proxy(url) as (nc, proxy):
        await other.flush()
        for count in (5, 50, 500, 5000):
            reconnects = nc.reconnects
            await nc.wait_connected()
            proxy.cut_after(count, UP)
            for number in range(300):
                await nc.publish(name, b"%d.%d" % (count, number))

            await until(partial(came_back, nc, reconnects))

        await nc.flush()
        await other.flush()
        await messages.drain()
        received = [message.data async for message in messages]
        assert len(received) == len(set(received))


async def test_subscriptions_with_queues_come_back_and_dropped_ones_do_not(url: str, name: str) -> None:
    async with connect(url) as other, through_proxy(url) as (nc, proxy), nc.subscribe(name, "q") as kept:
        async with nc.subscribe(f"{name}.left"):
            await nc.flush()

        async with nc.subscribe(f"{name}.leaving") as leaving:
            nc.lowlevel.unsubscribe(leaving.sid, drain=True)
            proxy.cut()
            await until(lambda: nc.connected and nc.reconnects)
            await nc.flush()
            for subject in (name, f"{name}.left", f"{name}.leaving"):
                await other.publish(subject, b"x")

            await other.flush()
            await nc.flush()
            assert (kept.pending, leaving.pending, nc.statistics().messages_in) == (1, 0, 1)


async def test_the_reader_of_a_subscription_is_told_that_it_was_renewed(url: str, name: str) -> None:
    renewed: list[bool] = []
    async with through_proxy(url) as (nc, proxy):
        nc.lowlevel.subscribe_nowait(
            name, lambda message: None, on_resubscribed=lambda: renewed.append(nc.connected)
        )
        await nc.flush()
        assert not renewed
        proxy.cut()
        await until(lambda: renewed)
        assert renewed == [True]


async def test_a_confirmed_publish_is_not_lost_whatever_happens_to_the_link(url: str, name: str) -> None:
    """Each request that got its reply was received; those without one may or may not have been."""
    received: set[int] = set()
    confirmed: set[int] = set()
    async with connect(url) as other, through_proxy(url, ping_interval=0.2) as (nc, proxy):

        async def serve() -> None:
            async with other.subscribe(name) as requests:
                serving.set()
                async for message in requests:
                    received.add(int(message.data))
                    await message.respond()

        async def send(number: int) -> None:
            try:
                await nc.request(name, b"%d" % number, timeout=LIMIT)
                confirmed.add(number)
            except (ConnectionLost, NoResponders):
                pass

        serving = anyio.Event()
        async with anyio.create_task_group() as servers:
            servers.start_soon(serve)
            await serving.wait()
            await other.flush()
            with anyio.fail_after(2 * LIMIT):
                for count in range(1, 12):
                    await nc.wait_connected()
                    proxy.cut_after(97 * count, DOWN if count % 2 else UP)
                    async with anyio.create_task_group() as group:
                        for number in range(count * 100, count * 100 + 50):
                            group.start_soon(send, number)

            servers.cancel_scope.cancel("all sent")

    assert confirmed <= received
    assert nc.reconnects


async def test_a_killed_and_restarted_server_is_found_again(name: str) -> None:
    listener = RecordingListener()
    async with (
        run_server(jetstream=False) as server,
        connect(server.url, listener=listener, **quick()) as nc,
        nc.subscribe(name) as messages,
    ):
        for expected in (1, 2):
            server.kill()
            await until(lambda: not nc.connected)
            await server.restart()
            await until(lambda: nc.connected)
            await nc.publish(name, b"%d" % expected)
            with anyio.fail_after(LIMIT):
                assert (await messages.receive()).data == b"%d" % expected

        assert nc.reconnects == nc.statistics().reconnects == 2

    assert len(listener.ups) == 3
    assert len(listener.downs) == 2


async def test_statistics_go_on_counting_over_links(url: str, name: str) -> None:
    async with through_proxy(url) as (nc, proxy):
        await nc.publish(name, bytes(1000))
        await nc.flush()
        first: Statistics = nc.statistics()
        proxy.cut()
        await until(lambda: nc.connected and nc.reconnects)
        await nc.publish(name, bytes(1000))
        await nc.flush()
        second = nc.statistics()

    assert [first.messages_out, second.messages_out, nc.statistics().messages_out] == [1, 2, 2]
    assert second.bytes_out >= first.bytes_out + 1000
    assert second.bytes_in > first.bytes_in
    assert nc.statistics().bytes_out >= second.bytes_out


async def test_without_reconnecting_a_broken_link_is_the_end(url: str, name: str) -> None:
    with pytest.raises(ConnectionLost):
        async with through_proxy(url, allow_reconnect=False) as (nc, proxy), nc.subscribe(name) as messages:
            proxy.cut()
            with anyio.CancelScope(shield=True), anyio.fail_after(LIMIT), pytest.raises(ConnectionLost):
                await messages.receive()

            with pytest.raises(ConnectionLost):
                nc.lowlevel.publish_nowait(name, "", b"", b"")

            await anyio.sleep_forever()
