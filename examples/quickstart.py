"""The first thing to run: jobs on NATS JetStream, performed on asyncio and then on Trio.

Four jobs are enqueued with NATS's own client, as any program could. One succeeds, one fails twice before it
does, one runs past its timeout, and one is cut short when its worker stops, so that the next worker gets it.

Run it:  python examples/quickstart.py [nats://127.0.0.1:4222]
Without a URL it starts a NATS server of its own. It takes about three seconds.
"""

import asyncio
import sys
from collections.abc import AsyncIterable
from secrets import token_hex

import anyio
import nats

from nats_jobs import Job, codecs, events, job, job_processor
from nats_jobs.server import run_server

ERRANDS = f"ERRANDS_{token_hex(4)}"  # no other stream has this name, should the server be one of yours
REPORTS = f"REPORTS_{token_hex(4)}"


@job(ERRANDS, codec=codecs.TEXT, concurrency=3, timeout=0.8, backoff=[0.1, 0.2])
async def run_errand(job: Job[str]) -> None:
    match job.payload:
        case "flaky" if job.attempt < 3:
            raise ConnectionError("nobody answers")
        case "slow" if job.attempt == 1:
            await anyio.sleep(60)


@job(REPORTS, codec=codecs.TEXT, stop_grace=0.3)
async def write_report(job: Job[str]) -> None:
    if job.attempt == 1:
        await job.wait_stopping()
        tell(job, "sees that the worker stops, but needs longer than its 0.3 s of grace")
        await anyio.sleep(60)


async def enqueue(url: str) -> None:
    """Enqueue the jobs with nats-py: a message in the stream is a job."""
    connection = await nats.connect(url)
    for stream, name in ((REPORTS, "report"), (ERRANDS, "quick"), (ERRANDS, "flaky"), (ERRANDS, "slow")):
        await connection.jetstream().publish(stream, name.encode(), headers={"Nats-Msg-Id": name})

    await connection.close()


async def work(url: str) -> int:
    """Perform the jobs and return how many are left, which should be none."""
    async with job_processor(url, on_event=show) as first, first.events() as stream:
        await first.start(run_errand)
        await first.start(write_report)
        await anyio.to_thread.run_sync(asyncio.run, enqueue(url))  # nats-py runs on asyncio only
        await wait_completed(stream, 3)
        print("  the worker is told to stop")
        await first.stop()

    print("  another worker starts")
    async with job_processor(url, on_event=show) as second, second.events() as stream:
        await second.start(write_report)
        await wait_completed(stream, 1)
        await second.stop()
        left = [(await second.js.stream_info(name)).state.messages for name in (ERRANDS, REPORTS)]
        for name in (ERRANDS, REPORTS):
            await second.js.delete_stream(name)

    return sum(left)


async def wait_completed(stream: AsyncIterable[events.Event], count: int) -> None:
    async for event in stream:
        count -= isinstance(event, events.Complete)
        if count == 0:
            return


def show(event: events.Event) -> None:
    """Print what is worth it. This is called with everything that happens."""
    match event:
        case events.Complete():
            tell(event, "done")
        case events.Error(error=error, backoff=delay):
            tell(event, f"failed with {type(error).__name__}, next attempt in {delay} s")
        case events.Interrupted(reason=reason):
            tell(event, f"cut short and handed back, reason: {reason}")


def tell(about: Job[str] | events.JobEvent, text: str) -> None:
    print(f"  {about.id:<6}  attempt {about.attempt}  {text}")


async def main() -> int:
    if len(sys.argv) > 1:
        return await work(sys.argv[1])

    async with run_server() as server:
        return await work(server.url)


if __name__ == "__main__":
    for backend in ("asyncio", "trio"):
        print(f"On {backend}:")
        if left := anyio.run(main, backend=backend):
            sys.exit(f"Something is wrong: {left} jobs are left.")

    print("All is well: every job was done, on asyncio and on Trio.")
