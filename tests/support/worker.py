"""A worker process whose handler writes into a ledger outside NATS: a file that is only appended to.

The payload of a job is JSON: `{"n": number, "sleep": seconds}`. Each line of the ledger is JSON, too:
what (`start`, `end`, `cut`, `failed`), the number, the fence, the process, the monotonic time of the machine, and
for a start how long before it the job may have been delivered.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
from nats.js.api import ConsumerConfig, StreamConfig

from nats_jobs import Job, JobDef, Reject, codecs, job_processor
from nats_jobs.errors import ConnectFailed, JobCutShort, SetupFailed
from support.wall_clock import WallClock, follow


class Ledger:
    """Lines are shorter than a page, and O_APPEND makes each write one piece, also among processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._read_to = self._ended = 0

    def write(self, what: str, number: int, **more: Any) -> None:
        entry = {"what": what, "n": number, "pid": os.getpid(), "at": time.monotonic(), **more}
        os.write(self._fd, json.dumps(entry).encode() + b"\n")

    def read(self, what: str | None = None) -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [entry for entry in entries if what in (None, entry["what"])]

    def ended(self) -> int:
        """Return how many times a job ended. May be asked often: only what is new is read."""
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            entries, mark, _ = file.read().rpartition(b"\n")

        self._read_to += len(entries) + len(mark)
        self._ended += entries.count(b'"what": "end"')
        return self._ended

    def numbers(self, what: str) -> list[int]:
        return sorted(entry["n"] for entry in self.read(what))


class WorkerProcess:
    """One worker in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def wait(self, seconds: float = 30.0) -> int:
        """Wait for its end and return its exit code."""
        with anyio.fail_after(seconds):
            while self.process.poll() is None:
                await anyio.sleep(0.02)

        return self.process.returncode


@contextmanager
def worker_process(url: str, stream: str, ledger: Ledger, **options: Any) -> Iterator[WorkerProcess]:
    """Start a worker process; it is killed when the block is left, if it still runs."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "support.worker",
        url,
        stream,
        str(ledger.path),
        *arguments,
    ]
    # From the folder of the tests, so that it finds `support`.
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    try:
        yield WorkerProcess(process)
    finally:
        if process.poll() is None:
            process.kill()

        process.wait()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("stream")
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--backend", default="asyncio")
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--grace", type=float, default=5.0)
    parser.add_argument("--ack-wait", type=float, default=10.0)
    parser.add_argument("--num-attempts", type=int, default=5)
    parser.add_argument("--backoff", type=float, default=1.0)
    # Only when given: a worker that says how many replicas it wants changes a stream that has more.
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--ping-interval", type=float, default=10.0)
    parser.add_argument("--wall-clock", type=Path, help="a file that says by how much the time of day is off")
    return parser.parse_args()


async def act(job: Job[dict[str, Any]]) -> None:
    """Do what the payload says: `block`, `sleep`, `reject`, `fail_until` an attempt."""
    if "block" in job.payload:
        time.sleep(job.payload["block"])

    await anyio.sleep(job.payload.get("sleep", 0))
    if job.payload.get("reject"):
        raise Reject("as the payload says")

    if job.attempt < job.payload.get("fail_until", 0):
        raise ValueError("as the payload says")


async def main(options: argparse.Namespace) -> None:
    ledger = Ledger(options.ledger)
    if options.wall_clock is not None:
        follow(WallClock(options.wall_clock))

    async def perform(job: Job[dict[str, Any]]) -> None:
        number, fence = job.payload["n"], job.fence
        # Each backend has a clock of its own; how long ago it was is the same on all.
        ledger.write(
            "start", number, fence=fence, waited=anyio.current_time() - job._control.delivery.sent_not_before
        )
        try:
            await act(job)
            # After a pause of the whole process the job may be another's by now.
            job.check_cancelled()
        except (anyio.get_cancelled_exc_class(), JobCutShort):
            ledger.write("cut", number, fence=fence, reason=job.reason.name if job.reason else None)
            raise
        except Exception as error:
            ledger.write("failed", number, fence=fence, error=str(error))
            raise

        ledger.write("end", number, fence=fence)

    defn = JobDef[Any](
        stream=options.stream,
        perform=perform,
        concurrency=options.concurrency,
        num_attempts=options.num_attempts,
        backoff=options.backoff,
        codec=codecs.JSON,
        stream_config=StreamConfig(num_replicas=options.replicas) if options.replicas else None,
        consumer_config=ConsumerConfig(ack_wait=options.ack_wait),
    )
    while not await work(options, defn):
        await anyio.sleep(0.2)


async def work(options: argparse.Namespace, defn: JobDef[Any]) -> bool:
    """Work until told to stop; False when no server answered at the start, for which a worker does not wait long."""
    try:
        async with job_processor(
            options.url.split(","),
            stop_signals=(signal.SIGTERM, signal.SIGINT),
            stop_grace=options.grace,
            reconnect_time_wait=0.5,
            ping_interval=options.ping_interval,
        ) as p:
            p.start_soon(defn)
    except (ConnectFailed, SetupFailed):
        # Whoever runs it would start it again. This is the same, and quicker.
        return False

    return True


if __name__ == "__main__":
    parsed = parse()
    anyio.run(main, parsed, backend=parsed.backend)
