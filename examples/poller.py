"""A poller in two processes: something is looked at each half second, by one of them, and never by both.

Both declare the same schedule, and nobody leads: each tick is enqueued by whoever is first. The ticks of `Every` count
from the Unix epoch, so a process that starts again does not move them. When one of the two stops, the other goes on.

Run it:  python examples/poller.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    two processes follow the schedule: each tick once, none left out
    one of them has stopped: each tick once, none left out
"""

import os
import sys
from datetime import datetime, timedelta
from itertools import pairwise
from secrets import token_hex

import anyio

from nats_jobs import Job, JobProcessor, events, job, job_processor
from nats_jobs.scheduler import Every, Schedule
from nats_jobs.server import run_server

STREAM = f"FEEDS_{token_hex(4)}"  # no other stream has this name
INTERVAL = 0.5  # seconds
ticks: list[datetime] = []


@job(STREAM, concurrency=1)  # one after the other, in the order of the ticks
async def poll(job: Job[None]) -> None:
    assert job.scheduled_for is not None  # the tick, whenever the job is performed
    ticks.append(job.scheduled_for)


SCHEDULE = Schedule(id="poll", rule=Every(INTERVAL), target=poll, catch_up="all")


async def polls(p: JobProcessor, count: int) -> str:
    async with p.events() as stream:
        async for event in stream:
            count -= isinstance(event, events.Complete)
            if not count:
                break

    steps = {later - earlier for earlier, later in pairwise(ticks)}
    return "each tick once, none left out" if steps == {timedelta(seconds=INTERVAL)} else f"steps of {steps}"


async def work(url: str) -> None:
    async with job_processor(url) as one, job_processor(url) as other:
        await one.start(poll)
        await one.start_schedule(SCHEDULE)
        await other.start_schedule(SCHEDULE)
        print("two processes follow the schedule:", await polls(one, 6))
        await one.stop()

        await other.start(poll)
        print("one of them has stopped:", await polls(other, 4))
        await other.stop()
        await other.js.delete_stream(STREAM)


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
