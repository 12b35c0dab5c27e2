"""A worker process that dies of the payload "poison", as a segmentation fault would have it, and performs all others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from nats.js.api import ConsumerConfig

from nats_jobs import Job, JobDef, codecs, job_processor

# One attempt, and room for a few deliveries more; so a test need not see twenty deaths. A lease shorter than
# the start of a process may be used up on the way: then a delivery is no death.
NUM_ATTEMPTS = 1
MAX_DELIVER = 4
ACK_WAIT = 2.0


def definition(stream: str, ledger: Path, ack_wait: float = ACK_WAIT) -> JobDef[str]:
    async def perform(job: Job[str]) -> None:
        with ledger.open("a") as lines:
            lines.write(f"{job.payload}\n")

        if job.payload == "poison":
            os.kill(os.getpid(), signal.SIGKILL)

    return JobDef(
        stream=stream,
        perform=perform,
        codec=codecs.TEXT,
        num_attempts=NUM_ATTEMPTS,
        consumer_config=ConsumerConfig(max_deliver=MAX_DELIVER, ack_wait=ack_wait),
    )


@contextmanager
def dying_worker(
    url: str, stream: str, ledger: Path, backend: str, ack_wait: float = ACK_WAIT
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-W", "error", __file__, url, stream, str(ledger), str(ack_wait), backend]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def main(url: str, stream: str, ledger: str, ack_wait: str) -> None:
    async with job_processor(url, stop_signals=(signal.SIGTERM,)) as p:
        p.start_soon(definition(stream, Path(ledger), float(ack_wait)))


if __name__ == "__main__":
    _, url, stream, ledger, ack_wait, backend = sys.argv
    anyio.run(main, url, stream, ledger, ack_wait, backend=backend)
