"""Processes that are killed and paused at random, a server that is killed and started again: each tick has one job."""

from __future__ import annotations

import random
from contextlib import ExitStack
from datetime import timedelta
from itertools import pairwise

import anyio
import pytest

from nats_jobs import JobProcessor, job_processor
from nats_jobs._untrusted import parse_moment
from nats_jobs.jobs import SCHEDULED_FOR
from nats_jobs.server import Server, run_server
from support.scheduling_process import SchedulingProcess, definition, scheduling_process

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

LIMIT = 60.0


async def ticks_of_stored_jobs(p: JobProcessor, stream: str) -> list[str]:
    """Return the tick of each job that was stored, in the order of the stream."""
    ticks: list[str] = []
    sequence = 1
    while True:
        message = await p.api.get_message(stream, {"seq": sequence, "next_by_subj": stream})
        if message is None:
            return ticks

        headers = (await p.js.get_msg(stream, message["seq"])).headers or {}
        ticks.append(headers[SCHEDULED_FOR])
        sequence = int(message["seq"]) + 1


async def until_stored(server: Server, stream: str, engine: str, count: int) -> list[str]:
    async with job_processor(server.url, wait_for_server=LIMIT) as p:
        with anyio.fail_after(LIMIT):
            while True:
                ticks = await ticks_of_stored_jobs(p, stream)
                if len(ticks) >= count:
                    return ticks

                await anyio.sleep(0.5)


def assert_each_once(ticks: list[str], interval: float) -> None:
    moments = [parse_moment(tick, "a tick") for tick in ticks]
    wrong = [(a, b) for a, b in pairwise(moments) if b - a != timedelta(seconds=interval)]
    assert not wrong


async def torment(
    server: Server, processes: list[SchedulingProcess], rng: random.Random, rounds: int, pause: float
) -> None:
    """Do something bad in each round; in the middle, kill the server."""
    for number in range(rounds):
        victim = rng.choice(processes)
        await anyio.sleep(rng.uniform(0.2, 0.6))
        match rng.choice(["kill", "pause", "both"]):
            case "kill":
                victim.kill()
                victim.restart()
            case "pause":
                victim.pause()
                await anyio.sleep(pause)
                victim.resume()
            case "both":
                victim.pause()
                other = rng.choice(processes)
                other.kill()
                await anyio.sleep(pause)
                other.restart()
                victim.resume()

        if number == rounds // 2:
            server.kill()
            await server.wait_exited()
            await server.restart()


async def under_fire(
    name: str, engine: str, backend: str, *, processes: int, rounds: int, interval: float, pause: float
) -> None:
    rng = random.Random(f"{name} {engine}")
    async with run_server() as server:
        async with job_processor(server.url) as p:
            # Made before, so that it can be asked for from the beginning.
            await (await p.start(definition(name, engine))).stop()
            await p.js.delete_consumer(name, f"{name}Consumer")

        with ExitStack() as stack:
            started = [
                stack.enter_context(scheduling_process(server.url, name, engine, interval, backend))
                for _ in range(processes)
            ]
            before = len(await until_stored(server, name, engine, 1))
            await torment(server, started, rng, rounds, pause)
            at_least = before + int(rounds * 0.4 / interval)
            ticks = await until_stored(server, name, engine, at_least)
            assert all(process.running for process in started)

        assert_each_once(ticks, interval)


@pytest.mark.parametrize("engine", ["batch", "claim"])
async def test_each_tick_has_one_job_while_processes_and_the_server_are_killed(
    name: str, engine: str, anyio_backend_name: str
) -> None:
    await under_fire(name, engine, anyio_backend_name, processes=3, rounds=4, interval=0.25, pause=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["batch", "claim"])
async def test_each_second_has_one_job_for_two_minutes(
    name: str, engine: str, anyio_backend_name: str
) -> None:
    await under_fire(name, engine, anyio_backend_name, processes=5, rounds=40, interval=1.0, pause=5.0)
