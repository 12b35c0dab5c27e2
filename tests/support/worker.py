"""A worker process whose handler writes into a ledger outside NATS: a file that is only appended to.

The payload of a job is JSON: `{"n": number, "sleep": seconds}`. Each line of the ledger is JSON, too:
what (`start`, `end`, `cut`, `failed`), the number, the attempt, the process, the monotonic time of the machine.
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
from nats.js.api import ConsumerConfig

from nats_jobs import Job, JobDef, Reject, codecs, job_processor
from nats_jobs.errors import JobCutShort


class Ledger:
    """Lines are shorter than a page, and O_APPEND makes each write one piece, also among processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, what: str, number: int, **more: Any) -> None:
        entry = {"what": what, "n": number, "pid": os.getpid(), "at": time.monotonic(), **more}
        os.write(self._fd, json.dumps(entry).encode() + b"\n")

    def read(self, what: str | None = None) -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [entry for entry in entries if what in (None, entry["what"])]

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
    command = [sys.executable, "-W", "error", __file__, url, stream, str(ledger.path), *arguments]
    process = subprocess.Popen(command)
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

    async def perform(job: Job[dict[str, Any]]) -> None:
        number = job.payload["n"]
        ledger.write("start", number, attempt=job.attempt)
        try:
            await act(job)
            # After a pause of the whole process the job may be another's by now.
            job.check_cancelled()
        except (anyio.get_cancelled_exc_class(), JobCutShort):
            ledger.write("cut", number, attempt=job.attempt, reason=job.reason.name if job.reason else None)
            raise
        except Exception as error:
            ledger.write("failed", number, attempt=job.attempt, error=str(error))
            raise

        ledger.write("end", number, attempt=job.attempt)

    defn = JobDef[Any](
        stream=options.stream,
        perform=perform,
        concurrency=options.concurrency,
        num_attempts=options.num_attempts,
        backoff=options.backoff,
        codec=codecs.JSON,
        consumer_config=ConsumerConfig(ack_wait=options.ack_wait),
    )
    async with job_processor(
        options.url,
        stop_signals=(signal.SIGTERM, signal.SIGINT),
        stop_grace=options.grace,
        reconnect_time_wait=0.5,
    ) as p:
        p.start_soon(defn)


if __name__ == "__main__":
    parsed = parse()
    anyio.run(main, parsed, backend=parsed.backend)
