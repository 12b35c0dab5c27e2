"""Real worker processes, stopped and killed; a second client publishes. What counts is the ledger."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from nats_jobs import JobProcessor, job_processor
from nats_jobs.server import run_server
from support.jobs import stands, until, until_empty
from support.outside import publish_from_outside
from support.worker import Ledger, worker_process

pytestmark = pytest.mark.anyio


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_two_workers_of_both_kinds_share_500_jobs_and_perform_each_once(
    url: str, name: str, ledger: Ledger
) -> None:
    with (
        worker_process(url, name, ledger, backend="trio") as first,
        worker_process(url, name, ledger, backend="asyncio") as second,
    ):
        async with job_processor(url) as p:
            await until(lambda: stands(p.js, name))
            await publish_from_outside(url, name, 500, payload='{"n": {}, "sleep": 0.01}')
            await until_empty(p.js, name)
            info = await p.js.consumer_info(name, f"{name}Consumer")
            assert (info.num_pending, info.num_ack_pending) == (0, 0)

        for worker in (first, second):
            worker.signal(signal.SIGTERM)
            assert await worker.wait() == 0

    assert ledger.numbers("start") == ledger.numbers("end") == list(range(500))
    share = Counter(entry["pid"] for entry in ledger.read("end"))
    assert set(share) == {first.pid, second.pid}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_sigterm_lets_jobs_end_in_their_grace_and_hands_the_others_over(
    url: str, name: str, ledger: Ledger, backend: str
) -> None:
    async with job_processor(url) as p:
        with worker_process(url, name, ledger, backend=backend, grace=1.0, num_attempts=1) as leaving:
            await until(lambda: stands(p.js, name))
            for number, sleep in enumerate([0.5, 0.5, 4, 4]):
                await p.enqueue(name, {"n": number, "sleep": sleep})

            await until(lambda: len(ledger.read("start")) == 4)
            with worker_process(url, name, ledger, backend="asyncio", num_attempts=1) as staying:
                await until(lambda: _waits(p, name))
                leaving.signal(signal.SIGTERM)
                assert await leaving.wait() == 0
                # The server would deliver them again by itself after ack_wait, 10 s from their start.
                await until(lambda: len(ledger.read("start")) == 6, seconds=5)
                await until_empty(p.js, name)
                staying.signal(signal.SIGTERM)
                assert await staying.wait() == 0

    assert [(entry["n"], entry["reason"]) for entry in ledger.read("cut")] in (
        [(2, "STOP"), (3, "STOP")],
        [(3, "STOP"), (2, "STOP")],
    )
    assert [
        (entry["n"], entry["fence"][1]) for entry in sorted(ledger.read("end"), key=lambda e: e["n"])
    ] == [
        (0, 1),
        (1, 1),
        (2, 2),
        (3, 2),
    ]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_is_killed_and_comes_back_loses_no_job(
    name: str, ledger: Ledger, backend: str
) -> None:
    count = 2000
    async with run_server() as server, job_processor(server.url, reconnect_time_wait=0.5) as p:
        with worker_process(server.url, name, ledger, backend=backend, concurrency=20, ack_wait=2) as worker:
            await until(lambda: stands(p.js, name))
            await p.enqueue_many(name, [{"n": number, "sleep": 0.005} for number in range(count)])
            await until(lambda: len(ledger.read("end")) > count // 10)
            server.kill()
            await server.wait_exited()
            assert len(ledger.read("end")) < count
            await server.restart()
            await until_empty(p.js, name)
            worker.signal(signal.SIGTERM)
            assert await worker.wait() == 0

    assert set(ledger.numbers("end")) == set(range(count))


async def _waits(p: JobProcessor, name: str) -> bool:
    """Whether a worker waits for jobs."""
    info = await p.js.consumer_info(name, f"{name}Consumer")
    return bool(info.num_waiting)
