"""`nats-jobs worker`, in one process and in several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nats_jobs import JobProcessor, job_processor
from support.jobs import stands, until, until_empty

pytestmark = pytest.mark.anyio
TESTS = Path(__file__).parent.parent


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """What is tested is another program; its own backend is an argument."""
    return str(request.param)


@contextmanager
def program(folder: Path, stream: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {
        "TEST_STREAM": stream,
        "TEST_FOLDER": str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-W", "error", "-m", "nats_jobs", "worker", *arguments]
    process = subprocess.Popen(command, cwd=TESTS, env=environment, text=True, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()

        process.wait()
        assert process.stderr is not None
        process.stderr.close()


async def ended(process: subprocess.Popen[str]) -> int:
    await until(lambda: process.poll() is not None)
    return process.returncode


def pids(folder: Path) -> set[int]:
    ledger = folder / "ledger"
    return {int(line.split()[0]) for line in ledger.read_text().splitlines()} if ledger.exists() else set()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_performs_the_jobs_of_a_module_until_a_signal(
    url: str, name: str, tmp_path: Path, backend: str, number: signal.Signals
) -> None:
    with program(tmp_path, name, "support.definitions", "--server", url, "--backend", backend) as process:
        async with job_processor(url) as p:
            await until(lambda: stands(p.js, name))
            await p.enqueue_many(name, range(10))
            await until_empty(p.js, name)

        process.send_signal(number)
        assert await ended(process) == 0

    assert pids(tmp_path) == {process.pid}


async def test_several_processes_share_the_work_and_a_dead_one_is_replaced(
    url: str, name: str, tmp_path: Path
) -> None:
    with program(tmp_path, name, "support.definitions:note", "--server", url, "--processes", "2") as process:
        async with job_processor(url) as p:
            await until(lambda: stands(p.js, name))
            await _enqueue_until(p, name, lambda: len(pids(tmp_path)) == 2)
            before = pids(tmp_path)
            assert process.pid not in before
            os.kill(min(before), signal.SIGKILL)
            await _enqueue_until(p, name, lambda: len(pids(tmp_path)) == 3)
            await until_empty(p.js, name)

        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0

    for pid in pids(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_of_several_processes_only_one_performs_a_job(
    url: str, name: str, tmp_path: Path, backend: str
) -> None:
    arguments = ("support.definitions:note", "--server", url, "--processes", "3", "--backend", backend)
    with program(tmp_path, name, *arguments) as process:
        async with job_processor(url) as p:
            await until(lambda: stands(p.js, name))
            await _enqueue_until(p, name, lambda: len(pids(tmp_path)) == 3)
            await p.enqueue_many(name, range(1000, 1500))
            await until_empty(p.js, name)

        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0

    performed = [int(line.split()[1]) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert sorted(number for number in performed if number >= 1000) == list(range(1000, 1500))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
async def test_processes_whose_supervisor_is_killed_stop_in_order(
    url: str, name: str, tmp_path: Path
) -> None:
    with program(tmp_path, name, "support.definitions:note", "--server", url, "--processes", "2") as process:
        async with job_processor(url) as p:
            await until(lambda: stands(p.js, name))
            await _enqueue_until(p, name, lambda: len(pids(tmp_path)) == 2)
            process.kill()
            await until(lambda: not any(map(is_alive, pids(tmp_path))))
            # Each took its request back: nobody asks for jobs any more.
            assert (await p.js.consumer_info(name, f"{name}Consumer")).num_waiting == 0


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False

    # A container may have no init that buries it.
    return state != "Z"


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        ("support.nothing_there", "No module named"),
        ("support.jobs", "no job definition"),
        ("support.definitions:STREAM", "a job definition is needed"),
        ("support.definitions:missing", "a job definition is needed"),
    ],
)
async def test_what_names_no_definition_is_one_line_and_an_exit_code_that_says_not_to_restart(
    url: str, name: str, tmp_path: Path, definition: str, text: str
) -> None:
    with program(tmp_path, name, definition, "--server", url) as process:
        assert await ended(process) == os.EX_CONFIG
        assert process.stderr is not None
        (line,) = process.stderr.read().splitlines()
        assert text in line


async def test_what_cannot_be_set_up_ends_all_processes(url: str, name: str, tmp_path: Path) -> None:
    async with job_processor(url) as p:
        await p.js.add_stream(name=f"{name}_OTHER", subjects=[name])

    with program(tmp_path, name, "support.definitions", "--server", url, "--processes", "2") as process:
        assert await ended(process) == os.EX_CONFIG
        assert process.stderr is not None
        assert "subjects overlap" in process.stderr.read()


async def _enqueue_until(p: JobProcessor, stream: str, condition: Callable[[], bool]) -> None:
    async def try_once() -> bool:
        await p.enqueue_many(stream, range(20))
        return condition()

    await until(try_once)
