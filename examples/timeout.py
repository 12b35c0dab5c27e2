"""A job that runs past its timeout is cancelled, and the next one of the same definition runs undisturbed.

The job can tell a timeout from a stop by `job.reason`. To its attempts a timeout counts as any other failure.

Run it:  python examples/timeout.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    stuck: started
    stuck: cleans up, because the job ran past its timeout
    stuck: Timeout after 0.3 s
    stuck: DeadLettered, exhausted
    sound: started
    sound: Complete
"""

import os
import sys
from secrets import token_hex

import anyio

from nats_jobs import CancelReason, Job, codecs, events, job, job_processor
from nats_jobs.server import run_server

STREAM = f"IMPORTS_{token_hex(4)}"  # no other stream has this name


@job(STREAM, codec=codecs.TEXT, timeout=0.3, num_attempts=1)
async def import_file(job: Job[str]) -> None:
    print(f"{job.payload}: started")
    try:
        if job.payload == "stuck":
            await anyio.sleep_forever()
    finally:
        if job.reason is CancelReason.TIMEOUT:
            print(f"{job.payload}: cleans up, because {job.reason.text}")


def show(event: events.Event) -> None:
    match event:
        case events.Timeout(id=id, timeout=seconds):
            print(f"{id}: Timeout after {seconds} s")
        case events.DeadLettered(id=id, reason=reason):
            print(f"{id}: DeadLettered, {reason}")
        case events.Complete(id=id):
            print(f"{id}: Complete")


async def work(url: str) -> None:
    async with job_processor(url, on_event=show) as p, p.events() as stream:
        await p.start(import_file)
        for file in ("stuck", "sound"):
            await p.enqueue(import_file, file, id=file)

        async for event in stream:
            if isinstance(event, events.Complete):
                break

        await p.stop()
        await p.js.delete_stream(STREAM)
        await p.js.purge_stream("DEAD_LETTERS", subject=f"dead_letters.{STREAM}.>")


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
