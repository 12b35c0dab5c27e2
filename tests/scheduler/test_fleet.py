"""Processes on both backends follow one schedule, die, stand still and come back: each tick is enqueued exactly once.

The long forms are run by `nox -s scheduler`.
"""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from nats.js.errors import Error as JetStreamError

from nats_jobs import JobProcessor, job_processor
from nats_jobs.errors import NatsJobsError
from nats_jobs.server import Server, run_server
from support.cluster import run_cluster
from support.jobs import until
from support.scheduler_process import Fleet, fleet, ticks_in

# The test itself does nothing that depends on the backend; the processes are on both.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

LIMIT = 90.0


async def seen(p: JobProcessor, stream: str) -> list[datetime]:
    """Return the ticks that have a job; none while a node or the server is just coming back."""
    try:
        return await ticks_in(p.js, stream)
    except (JetStreamError, NatsJobsError):
        return []


async def ticking(urls: list[str], stream: str) -> None:
    """Wait for the first tick."""
    async with job_processor(urls, wait_for_server=LIMIT) as p:
        await until(lambda: seen(p, stream), LIMIT)


async def check(urls: list[str], stream: str, interval: float) -> None:
    """Wait until the ticks of now are there, and see that each is there once, from the first to the last."""
    now = datetime.now(UTC)
    found: list[datetime] = []

    async def caught_up() -> bool:
        found[:] = await seen(p, stream)
        return bool(found) and max(found) >= now

    async with job_processor(urls, wait_for_server=LIMIT) as p:
        await until(caught_up, LIMIT)

    step = timedelta(seconds=interval)
    assert found == [found[0] + number * step for number in range(len(found))]


async def crash(server: Server) -> None:
    server.kill()
    await server.wait_exited()
    await server.restart()


async def test_each_tick_is_enqueued_once_whoever_dies(name: str) -> None:
    async with run_server() as server:
        with fleet(3, [server.url], name, "@every 0.5s") as processes:
            await ticking([server.url], name)
            processes.members[0].restart(signal.SIGKILL)
            await crash(server)
            await processes.members[1].suspend(1.5)
            processes.members[2].restart(signal.SIGTERM)
            await check([server.url], name, 0.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_each_second_for_two_minutes_has_one_job_whatever_happens(name: str) -> None:
    """Each process is killed, suspended for up to five seconds and restarted at random; the server leaves and crashes."""
    async with run_server() as server:
        with fleet(5, [server.url], name, "* * * * * *", seed=7) as processes:
            await ticking([server.url], name)
            await disturb(processes, 40)
            server.terminate()
            await server.wait_exited()
            await server.restart()
            await disturb(processes, 40)
            await crash(server)
            await disturb(processes, 40)
            await check([server.url], name, 1.0)


async def disturb(processes: Fleet, seconds: float) -> None:
    end = anyio.current_time() + seconds
    while anyio.current_time() < end:
        await processes.disturb(5.0)
        await anyio.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_leader_that_is_killed_at_a_tick_loses_and_doubles_none(name: str) -> None:
    async with run_cluster() as cluster:
        with fleet(5, cluster.urls, name, "* * * * * *", replicas=3) as processes:
            await ticking(cluster.urls, name)
            for _ in range(3):
                async with job_processor(cluster.urls) as p:
                    leader = await cluster.stream_leader(p.js, name)

                await anyio.sleep(1 - datetime.now(UTC).microsecond / 1e6)
                await leader.kill()
                await disturb(processes, 15)
                await leader.restart()

            await check(cluster.urls, name, 1.0)
