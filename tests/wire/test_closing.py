"""A connection ends within a bound, from any state and under cancellation, and leaves nothing behind.

`NATS_JOBS_LONG=1` runs the long form of the last test: three thousand connections instead of some hundred;
`nox -s wire` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.abc import SocketStream

from nats_jobs.errors import ConnectFailed, ConnectionLost, NatsJobsError, RequestTimeout
from nats_jobs.server import Server, run_server
from nats_jobs.wire import Connection, connect
from support.connections import LIMIT, quick, until
from support.peer import INFO, scripted_peer
from support.proxy import UP, fault_proxy
from support.servers import free_port

pytestmark = pytest.mark.anyio

ROUNDS = 1000 if os.environ.get("NATS_JOBS_LONG") else 35
DRAIN = 0.3
STATES = ["connected", "stalled", "half-open", "reconnecting", "greeting again"]


async def mute(stream: SocketStream) -> None:
    pass


async def only_info(stream: SocketStream) -> None:
    await stream.send(INFO)


@pytest.mark.parametrize("script", [mute, only_info])
async def test_a_connection_is_cancelled_in_the_middle_of_the_greeting(script: Any) -> None:
    async with scripted_peer(script) as peer:
        with anyio.fail_after(LIMIT):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(_connect_and_stay, peer.url)
                    await until(lambda: peer.clients)
                    scope.cancel("not needed any more")

            await peer.wait_all_gone()


async def _connect_and_stay(url: str) -> None:
    async with connect(url, connect_timeout=1000, drain_timeout=DRAIN):
        await anyio.sleep_forever()


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("state", STATES)
async def test_leaving_takes_no_longer_than_draining(
    url: str, name: str, state: str, cancelled: bool
) -> None:
    async with fault_proxy(url) as proxy:
        began = anyio.current_time()
        with anyio.fail_after(LIMIT), anyio.CancelScope() as scope:
            options = quick(drain_timeout=DRAIN, connect_timeout=1000)
            async with connect(proxy.url, **options) as nc, nc.subscribe(name):
                await nc.flush()
                await _bring_into(state, nc, proxy)
                if nc.connected:
                    await nc.publish(name, b"x")

                began = anyio.current_time()
                if cancelled:
                    scope.cancel("leaving")
                    await anyio.lowlevel.checkpoint()

        # Generous: the bound is drain_timeout and a second.
        assert anyio.current_time() - began < LIMIT / 3
        proxy.restore()
        await proxy.wait_open(0)


@pytest.mark.parametrize("patience", [0.0, 0.02, LIMIT])
@pytest.mark.parametrize("state", STATES)
async def test_draining_ends_in_any_state_and_so_do_the_subscriptions(
    url: str, name: str, state: str, patience: float
) -> None:
    options = quick(drain_timeout=DRAIN, connect_timeout=1000)
    async with fault_proxy(url) as proxy, connect(proxy.url, **options) as nc, nc.subscribe(name) as messages:
        await nc.flush()
        await _bring_into(state, nc, proxy)
        with anyio.fail_after(LIMIT), suppress(ConnectionLost, RequestTimeout):
            with anyio.move_on_after(patience):
                await nc.drain()

        with anyio.fail_after(LIMIT):
            assert [message async for message in messages] == []

        # The inbox of the requests is left.
        assert len(nc.lowlevel.subscriptions) == 1


@pytest.mark.parametrize("state", STATES)
async def test_draining_one_subscription_can_be_cancelled_in_any_state(
    url: str, name: str, state: str
) -> None:
    options = quick(drain_timeout=DRAIN, connect_timeout=1000)
    async with fault_proxy(url) as proxy, connect(proxy.url, **options) as nc, nc.subscribe(name) as messages:
        await nc.flush()
        await _bring_into(state, nc, proxy)
        with anyio.fail_after(LIMIT), anyio.move_on_after(0.02):
            await messages.drain()

        with anyio.fail_after(LIMIT):
            assert [message async for message in messages] == []


async def _bring_into(state: str, nc: Connection, proxy: Any) -> None:
    match state:
        case "stalled":
            proxy.stall()
        case "half-open":
            proxy.swallow()
        case "reconnecting":
            proxy.refuse()
            proxy.cut()
            await proxy.wait_refused(2)
        case "greeting again":
            proxy.swallow()
            proxy.cut()
            await proxy.wait_accepted(2)
            await until(lambda: not nc.connected)
        case _:
            pass


async def test_leaving_with_a_send_that_is_stuck_is_bounded(url: str) -> None:
    async with fault_proxy(url) as proxy:
        with anyio.fail_after(LIMIT):
            async with connect(proxy.url, **quick(drain_timeout=DRAIN)) as nc:
                proxy.stall(UP)
                for _ in range(32):
                    nc.lowlevel.publish_nowait("filler", "", b"", bytes(1_000_000))

        proxy.restore()
        await proxy.wait_open(0)


async def test_an_error_in_the_block_comes_out_as_it_is(url: str) -> None:
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with connect(url):
            raise ZeroDivisionError("mine")


async def test_a_request_that_is_unanswered_when_the_connection_is_left_fails_at_once(
    url: str, name: str
) -> None:
    failures: list[Exception] = []

    async def ask(nc: Connection) -> None:
        try:
            await nc.request(name, timeout=10 * LIMIT)
        except NatsJobsError as error:
            failures.append(error)

    with anyio.fail_after(LIMIT):
        async with connect(url) as other, other.subscribe(name), anyio.create_task_group() as group:
            await other.flush()
            async with connect(url) as nc:
                group.start_soon(ask, nc)
                await until(lambda: len(nc.lowlevel.requests))

    assert [type(error) for error in failures] == [ConnectionLost]


async def test_those_who_clean_up_while_cancelled_still_have_the_link(url: str, name: str) -> None:
    async with connect(url) as other, other.subscribe(name) as messages:
        await other.flush()
        with anyio.CancelScope() as scope:
            async with connect(url) as nc:
                try:
                    scope.cancel("stop")
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True), anyio.fail_after(LIMIT):
                        await nc.publish(name, b"last words")
                        await nc.flush()

        with anyio.fail_after(LIMIT):
            assert (await messages.receive()).data == b"last words"


@asynccontextmanager
async def monitored_server() -> AsyncIterator[tuple[Server, int]]:
    port = free_port()
    async with run_server(args=("-m", str(port)), jetstream=False) as server:
        yield server, port


async def connections(port: int) -> list[dict[str, Any]]:
    def read() -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/connz?subs=1", timeout=10) as answer:
            return json.load(answer)["connections"]

    found: list[dict[str, Any]] = await to_thread.run_sync(read)
    return found


async def use(url: str, number: int) -> None:
    """Connect, use everything, and stay."""

    async def serve(nc: Connection, subject: str) -> None:
        async with nc.subscribe(subject, "workers") as requests:
            async for message in requests:
                await message.respond(message.data)

    async def use_all(nc: Connection) -> None:
        subject = f"use.{number}"
        async with anyio.create_task_group() as group, nc.subscribe(f"{subject}.>") as messages:
            group.start_soon(serve, nc, subject)
            await nc.flush()
            await nc.request(subject, b"x", timeout=LIMIT)
            await nc.publish(f"{subject}.a", bytes(1000))
            await messages.receive()
            await messages.drain()
            await anyio.sleep_forever()

    try:
        async with connect(url, **quick(name="vanishing", drain_timeout=1)) as nc:
            await use_all(nc)
    except* NatsJobsError:
        # Cut short, a request may find the link gone.
        pass


def some_time(rng: random.Random) -> float:
    """Most of a use takes some milliseconds; some end before they began, some long afterwards."""
    return rng.choice([0, rng.random() * 0.005, rng.random() * 0.03])


async def use_and_vanish(url: str, rng: random.Random, number: int) -> None:
    """Be cancelled at a random point of it."""
    with anyio.move_on_after(some_time(rng)):
        await use(url, number)


def open_sockets() -> int:
    """Count the sockets of this process."""
    count = 0
    for entry in os.scandir("/proc/self/fd"):
        with suppress(OSError):
            count += os.readlink(entry.path).startswith("socket:")

    return count


def running_tasks() -> int:
    """Count the tasks of the running event loop, the threads that AnyIO keeps aside."""
    return len(anyio.get_running_tasks())


async def test_connections_cancelled_at_random_points_leave_no_task_socket_or_subscription() -> None:
    rng = random.Random(20261123)
    async with monitored_server() as (server, port), connect(server.url, name="witness") as witness:
        sockets, tasks = open_sockets(), running_tasks()
        for number in range(ROUNDS):
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(use_and_vanish, server.url, rng, number)

            assert running_tasks() == tasks

        with anyio.fail_after(LIMIT):
            # One that was cut short before it said its name has none.
            while [each.get("name") for each in await connections(port)] != ["witness"]:
                await anyio.sleep(0.05)

        assert open_sockets() <= sockets + 1
        await witness.flush()
        subscriptions = [each.get("subscriptions_list", []) for each in await connections(port)]
        assert len(subscriptions[0]) == 1


@pytest.mark.parametrize("anyio_backend", [("asyncio", {}), ("asyncio", {"use_uvloop": True})])
async def test_connections_of_tasks_that_are_cancelled_the_way_of_asyncio_leave_nothing(url: str) -> None:
    """Such a cancellation comes once only, and an application or its framework may still send one."""
    rng = random.Random(20261124)
    sockets, tasks = open_sockets(), running_tasks()
    for number in range(ROUNDS):
        task = asyncio.get_running_loop().create_task(use(url, number))
        await asyncio.sleep(some_time(rng))
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=LIMIT)
        assert done
        assert task.cancelled()
        assert running_tasks() == tasks

    assert open_sockets() <= sockets + 1


@pytest.mark.parametrize("readers", [0, 1, 2])
async def test_what_ends_a_connection_for_good_is_raised_alone_though_the_block_meets_it_too(
    readers: int,
) -> None:
    async with run_server(jetstream=False) as server:
        with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed):
            async with (
                connect(server.url, **quick(max_reconnect_attempts=1)) as nc,
                nc.subscribe("x") as messages,
                anyio.create_task_group() as group,
            ):
                for _ in range(readers):
                    group.start_soon(messages.receive)

                await nc.flush()
                server.kill()
                await anyio.sleep_forever()
