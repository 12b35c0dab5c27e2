"""Signals that come to more processes than one, and processes that end without any."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nats_jobs import Job, job, job_processor
from support import signalled
from support.jobs import Seen, until, until_empty

pytestmark = pytest.mark.anyio


@contextmanager
def workers(url: str, stream: str, ledger: Path, backend: str) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor with two children, in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, signalled.__file__, url, stream, str(ledger), backend, "2"]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def lines(ledger: Path, what: str) -> list[str]:
    return (
        [line for line in ledger.read_text().splitlines() if line.startswith(what)] if ledger.exists() else []
    )


def children_of(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells who is whose child")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_signal_to_all_processes_of_a_unit_is_one_stop_with_grace(
    url: str, name: str, tmp_path: Path, backend: str, number: signal.Signals
) -> None:
    """A terminal signals the group, systemd every process; and the supervisor forwards what it gets."""
    ledger = tmp_path / "ledger"
    with workers(url, name, ledger, backend) as supervisor:
        async with job_processor(url) as p:
            await p.js.add_stream(name=name, subjects=[name], retention="workqueue")
            await p.enqueue_many(name, ["1.5", "1.5"])
            await until(lambda: len(lines(ledger, "start")) == 2)
            children = children_of(supervisor.pid)
            assert len(children) == 2
            os.killpg(supervisor.pid, number)
            for child in children:
                os.kill(child, number)

            await until(lambda: supervisor.poll() is not None)

    assert supervisor.returncode == 0
    assert len(lines(ledger, "end")) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_second_signal_stops_the_children_at_once(url: str, name: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with workers(url, name, ledger, "asyncio") as supervisor:
        async with job_processor(url) as p:
            await p.js.add_stream(name=name, subjects=[name], retention="workqueue")
            await p.enqueue_many(name, ["600", "600"])
            await until(lambda: len(lines(ledger, "start")) == 2)
            supervisor.send_signal(signal.SIGINT)
            # Of the same number two that nobody has taken yet would be one.
            supervisor.send_signal(signal.SIGTERM)
            await until(lambda: supervisor.poll() is not None)

    assert supervisor.returncode == 0
    assert not lines(ledger, "end")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_child_that_ends_by_itself_with_0_is_replaced(url: str, name: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with workers(url, name, ledger, "asyncio") as supervisor:
        async with job_processor(url) as p:
            await p.js.add_stream(name=name, subjects=[name], retention="workqueue")
            await p.enqueue(name, "exit")
            await until(lambda: lines(ledger, "start exit"))
            await p.enqueue_many(name, ["0.2"] * 10)
            await until(lambda: len(lines(ledger, "end")) == 10)
            await until(lambda: len(children_of(supervisor.pid)) == 2)
            assert supervisor.poll() is None

        supervisor.terminate()
        await until(lambda: supervisor.poll() is not None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
async def test_a_process_that_a_handler_forks_does_not_handle_our_signals(url: str, name: str) -> None:
    seen = Seen()
    codes: list[int | None] = []
    stopping: list[bool] = []

    @job(name)
    def fork(job: Job[Any]) -> None:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(20)
        codes.append(child.exitcode)
        child.kill()
        child.join()
        stopping.append(job.stopping)

    async with job_processor(url, on_event=seen, stop_signals=[signal.SIGTERM]) as p:
        await p.start(fork)
        await p.enqueue(fork, None)
        await until_empty(p.js, name)
        await p.stop()

    assert codes == [-signal.SIGTERM]
    assert stopping == [False]
