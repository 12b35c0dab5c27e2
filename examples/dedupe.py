"""The same id twice within the stream's duplicate window is one job; after the window it is a new one.

The window is a setting of the stream (2 minutes unless it says otherwise). It is measured from the first job
with that id; what is swallowed does not prolong it.

Run it:  python examples/dedupe.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    enqueue order-1: stored as job 1
    enqueue order-1: a duplicate of job 1
    enqueue order-2: stored as job 2
    enqueue order-3: stored as job 3
    enqueue order-2: a duplicate of job 2
    the window is over
    enqueue order-1: stored as job 4
    performed: order-1, order-2, order-3, order-1
"""

import os
import sys
from secrets import token_hex

import anyio
from nats.js.api import StreamConfig

from nats_jobs import Enqueued, Job, codecs, job, job_processor
from nats_jobs.server import run_server

STREAM = f"ORDERS_{token_hex(4)}"  # no other stream has this name
WINDOW = 3.0  # seconds
performed: list[str] = []
finished = anyio.Event()


@job(STREAM, codec=codecs.TEXT, stream_config=StreamConfig(duplicate_window=WINDOW))
async def ship(job: Job[str]) -> None:
    performed.append(job.payload)
    if len(performed) == 4:
        finished.set()


async def work(url: str) -> None:
    async with job_processor(url) as p:
        await p.start(ship)
        for order in ("order-1", "order-1", "order-2", "order-3", "order-2"):
            tell(order, await p.enqueue(ship, order, id=order))

        await anyio.sleep(WINDOW)
        answer = await p.enqueue(ship, "order-1", id="order-1")
        while answer.duplicate:  # the server forgets an id a little later
            await anyio.sleep(0.1)
            answer = await p.enqueue(ship, "order-1", id="order-1")

        print("the window is over")
        tell("order-1", answer)
        await finished.wait()
        print("performed:", ", ".join(performed))
        await p.stop()
        await p.js.delete_stream(STREAM)


def tell(order: str, answer: Enqueued) -> None:
    print(f"enqueue {order}: {'a duplicate of' if answer.duplicate else 'stored as'} job {answer.sequence}")


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
