"""`run()`, in a process of its own: it works until it is told to stop, and ends well."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from nats_jobs import job_processor
from support.jobs import LIMIT, in_stream, until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

PROGRAM = """
import sys
import anyio
from nats_jobs import job, run

_, url, stream, backend, ledger = sys.argv

@job(stream, concurrency=2)
async def work(job):
    with open(ledger, "a") as lines:
        lines.write(f"start {job.payload}\\n")

    if job.payload == "long":
        await anyio.sleep_forever()

    with open(ledger, "a") as lines:
        lines.write(f"end {job.payload}\\n")

run(work, servers=url, backend=backend, stop_grace=0.5)
print("after run")
"""


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_performs_jobs_until_a_signal_and_the_program_goes_on_after_it(
    url: str, name: str, tmp_path: Path, backend: str, number: signal.Signals
) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    with running([sys.executable, "-W", "error", "-c", PROGRAM, url, name, backend, str(ledger)]) as process:
        async with job_processor(url) as p:
            for payload in ("short", "long"):
                await p.enqueue(name, payload)

            await until(lambda: {"end short", "start long"} <= set(ledger.read_text().splitlines()))
            process.send_signal(number)
            with anyio.fail_after(LIMIT):
                out, err = await anyio.to_thread.run_sync(process.communicate)

            assert (process.returncode, out, err) == (0, "after run\n", "")
            # The long one was handed back.
            assert await in_stream(p.js, name) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_an_error_that_ends_a_worker_comes_out_of_it_as_itself(backend: str) -> None:
    program = PROGRAM.replace("servers=url", "servers='nats://127.0.0.1:1'")
    command = [sys.executable, "-W", "error", "-c", program, "", "S", backend, ""]
    with anyio.fail_after(LIMIT):
        result = await anyio.run_process(command, check=False)

    assert result.returncode == 1
    last_line = result.stderr.decode().strip().splitlines()[-1]
    assert last_line.startswith("nats_jobs.errors.ConnectFailed: ")
    assert "127.0.0.1:1" in last_line


QUITTER = """
import sys
import anyio
from nats_jobs import job, job_processor

_, url, stream, backend = sys.argv

@job(stream)
async def quit(job):
    await anyio.sleep(0)
    sys.exit(3)

async def main():
    async with job_processor(url) as p:
        await p.start(quit)
        await p.enqueue(quit, 1)

anyio.run(main, backend=backend)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_handler_that_exits_ends_the_program_at_once(url: str, name: str, backend: str) -> None:
    """On asyncio the tasks that could confirm anything are gone by then: waiting for them took `ack_wait`."""
    command = [sys.executable, "-c", QUITTER, url, name, backend]
    with anyio.fail_after(8):
        result = await anyio.run_process(command, check=False)

    assert result.returncode == 3
    async with job_processor(url) as p:
        assert await in_stream(p.js, name) == 1
