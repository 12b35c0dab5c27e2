"""Two schedulers enqueue the same run at the same time: what the duplicate window promises, and what not.

It promises that within the window one job is stored for each id. It does not know whether that job is done: within
the window the id stays taken, after it the id is new again. (A restart of the server may end it early, for the ids
of jobs that are done.) So let an id name one run: which schedule, and for when; and let the window be longer than
any scheduler can be late.

Run it:  python examples/scheduling_duplicates.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    12:00 by two at once: a duplicate and stored
      performed: 12:00
    12:00 again, though it is done: a duplicate
    12:05 has an id of its own: stored
      performed: 12:05
    12:00 by one that is later than the window: stored
      performed: 12:00
"""

import os
import sys
from collections.abc import AsyncIterable
from secrets import token_hex

import anyio
from nats.js.api import StreamConfig

from nats_jobs import Job, JobProcessor, codecs, events, job, job_processor
from nats_jobs.server import run_server

STREAM = f"REPORTS_{token_hex(4)}"  # no other stream has this name
WINDOW = 3.0  # seconds; so short for this example only, the default is two minutes
performed: list[str] = []


@job(STREAM, codec=codecs.TEXT, stream_config=StreamConfig(duplicate_window=WINDOW))
async def write_report(job: Job[str]) -> None:
    performed.append(job.payload)


async def schedule(p: JobProcessor, time: str) -> str:
    answer = await p.enqueue(write_report, time, id=f"report of {time}")
    return "a duplicate" if answer.duplicate else "stored"


async def work(url: str) -> None:
    async with job_processor(url) as one, job_processor(url) as other, one.events() as stream:
        await one.start(write_report)
        answers: list[str] = []

        async def at_noon(p: JobProcessor) -> None:
            answers.append(await schedule(p, "12:00"))

        async with anyio.create_task_group() as both:
            both.start_soon(at_noon, one)
            both.start_soon(at_noon, other)

        print("12:00 by two at once:", " and ".join(sorted(answers)))
        await wait_performed(stream)
        print("12:00 again, though it is done:", await schedule(other, "12:00"))
        print("12:05 has an id of its own:", await schedule(other, "12:05"))
        await wait_performed(stream)
        await anyio.sleep(WINDOW)
        answer = await schedule(other, "12:00")
        while answer == "a duplicate":  # the server forgets an id a little later
            await anyio.sleep(0.1)
            answer = await schedule(other, "12:00")

        print("12:00 by one that is later than the window:", answer)
        await wait_performed(stream)
        await one.stop()
        await one.js.delete_stream(STREAM)


async def wait_performed(stream: AsyncIterable[events.Event]) -> None:
    async for event in stream:
        if isinstance(event, events.Complete):
            print("  performed:", performed[-1])
            return


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
