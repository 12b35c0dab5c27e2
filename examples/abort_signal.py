"""A job that goes through many records stops between two of them, and the next worker goes on from there.

A stop cancels what runs longer than its grace period. `job.shield()` holds that off until a record is done;
`job.stopping` tells a job that would rather end by itself that a stop was asked for.

Run it:  python examples/abort_signal.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    attempt 1 starts at record 1
      record 1 copied
      record 2 copied
      told to stop in the middle of record 3
      record 3 copied
    attempt 1 ends here: CancelReason.STOP
    a new worker starts
    attempt 2 starts at record 4
      record 4 copied
      record 5 copied
    attempt 2 has copied all
"""

import os
import sys
from secrets import token_hex

import anyio
from anyio.lowlevel import checkpoint

from nats_jobs import Job, job, job_processor
from nats_jobs.server import run_server

STREAM = f"COPIES_{token_hex(4)}"  # no other stream has this name
copied: list[int] = []  # stands for a table in your database
in_the_middle, finished = anyio.Event(), anyio.Event()


@job(STREAM, stop_grace=0)
async def copy_records(job: Job[int]) -> None:
    print(f"attempt {job.attempt} starts at record {len(copied) + 1}")
    try:
        while len(copied) < job.payload:
            with job.shield():
                await copy(len(copied) + 1, job)

            await checkpoint()  # only an await outside the shield lets the cancellation in
    finally:
        print(f"attempt {job.attempt} " + (f"ends here: {job.reason}" if job.reason else "has copied all"))

    finished.set()


async def copy(record: int, job: Job[int]) -> None:
    if record == 3:
        in_the_middle.set()
        await job.wait_stopping()
        print("  told to stop in the middle of record 3")

    await anyio.sleep(0.1)
    copied.append(record)
    print(f"  record {record} copied")


async def work(url: str) -> None:
    async with job_processor(url) as p:
        await p.start(copy_records)
        await p.enqueue(copy_records, 5)
        await in_the_middle.wait()
        await p.stop()

    print("a new worker starts")
    async with job_processor(url) as p:
        await p.start(copy_records)
        await finished.wait()
        await p.stop()
        await p.js.delete_stream(STREAM)


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
