"""A job that fails is tried again: after the definition's backoff, or after a delay it asks for itself.

When its attempts are used up it becomes a dead letter: nothing is lost, and it says why it is there.

Run it:  python examples/retry.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    busy, attempt 1 of 4
      failed: the line is busy; again in 0.1 s
    busy, attempt 2 of 4
      asks for another attempt in 0.3 s
    busy, attempt 3 of 4
      done
    hopeless, attempt 1 of 4
      failed: no such number; again in 0.1 s
    hopeless, attempt 2 of 4
      failed: no such number; again in 0.2 s
    hopeless, attempt 3 of 4
      failed: no such number; again in 0.2 s
    hopeless, attempt 4 of 4
      failed: no such number; that was the last attempt
    dead letter: exhausted, attempts: 4
"""

import os
import sys
from secrets import token_hex

import anyio

from nats_jobs import Job, Retry, codecs, events, job, job_processor
from nats_jobs.server import run_server

STREAM = f"CALLS_{token_hex(4)}"  # no other stream has this name


@job(STREAM, codec=codecs.TEXT, num_attempts=4, backoff=[0.1, 0.2])  # 0.2 s also after the third
async def call(job: Job[str]) -> None:
    print(f"{job.payload}, attempt {job.attempt} of {job.num_attempts}")
    if job.payload == "hopeless":
        raise ConnectionError("no such number")

    if job.attempt == 1:
        raise ConnectionError("the line is busy")

    if job.attempt == 2:
        print("  asks for another attempt in 0.3 s")
        raise Retry(0.3)  # as a server's Retry-After would demand; not reported as an error


def show(event: events.Event) -> None:
    match event:
        case events.Complete():
            print("  done")
        case events.Error(attempts_exhausted=True, error=error):
            print(f"  failed: {error}; that was the last attempt")
        case events.Error(error=error, backoff=delay):
            print(f"  failed: {error}; again in {delay} s")


async def work(url: str) -> None:
    async with job_processor(url, on_event=show) as p, p.events() as stream:
        await p.start(call)
        for number in ("busy", "hopeless"):
            await p.enqueue(call, number)
            async for event in stream:
                if isinstance(event, events.Complete | events.DeadLettered):
                    break

        letter = await p.js.get_last_msg("DEAD_LETTERS", f"dead_letters.{STREAM}.{STREAM}")
        headers = letter.headers or {}
        print(f"dead letter: {headers['Nats-Jobs-Reason']}, attempts: {headers['Nats-Jobs-Attempts']}")
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
