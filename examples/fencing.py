"""A worker that has lost its job, and does not know it, cannot overwrite what the next one wrote.

Every delivery of a job has a fence: (sequence of the job, number of the delivery). It only grows. Write it beside
your data, by compare-and-set, and refuse to write over a greater one. Here the store is NATS's key-value store; a
table with a column for the fence does it in the same way.

Run it:  python examples/fencing.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    attempt 1 starts
    attempt 1 has lost its lease, but goes on
    attempt 2 starts
    attempt 2 writes: accepted
    attempt 1 writes: refused, attempt 2 was here
    in the store: written by attempt 2
"""

import json
import os
import sys
from secrets import token_hex

import anyio
from nats.js.api import ConsumerConfig
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from nats_jobs import Fence, Job, codecs, events, job, job_processor
from nats_jobs.server import run_server


class Overtaken(Exception):
    """A later delivery of the job has written before us."""


async def write(store: KeyValue, key: str, text: str, fence: Fence) -> None:
    """Store `text` under `key`, unless somebody with a greater fence has; then raise Overtaken."""
    value = json.dumps({"fence": fence, "text": text}).encode()
    while True:
        try:
            entry = await store.get(key)
        except KeyNotFoundError:
            revision = None
        else:
            revision = entry.revision
            theirs = Fence(*json.loads(entry.value or b"")["fence"])
            if theirs > fence:
                raise Overtaken(f"attempt {theirs.attempt} was here")

        try:
            if revision is None:
                await store.create(key, value)
            else:
                await store.update(key, value, last=revision)

            return
        except KeyWrongLastSequenceError:
            continue  # somebody wrote between our look and our write: look again


STREAM, REPORTS = f"REPORTS_{token_hex(4)}", f"WRITTEN_{token_hex(4)}"  # nobody else has these names
second_wrote, both_ended = anyio.Event(), anyio.Event()


# One second of lease, and nobody to extend it: so the first attempt loses it, as a paused process would.
@job(
    STREAM,
    codec=codecs.TEXT,
    concurrency=2,
    consumer_config=ConsumerConfig(ack_wait=1),
    auto_extend_ack_timeout=False,
)
async def write_report(job: Job[str]) -> None:
    print(f"attempt {job.attempt} starts")
    store = await job.processor.js.key_value(REPORTS)
    with job.shield():
        if job.attempt == 1:
            await second_wrote.wait()

        try:
            await write(store, job.payload, f"written by attempt {job.attempt}", job.fence)
            print(f"attempt {job.attempt} writes: accepted")
        except Overtaken as why:
            print(f"attempt {job.attempt} writes: refused, {why}")

    (second_wrote if job.attempt == 2 else both_ended).set()


def show(event: events.Event) -> None:
    if isinstance(event, events.LeaseLost):
        print(f"attempt {event.attempt} has lost its lease, but goes on")


async def work(url: str) -> None:
    async with job_processor(url, on_event=show) as p:
        store = await p.js.create_key_value(bucket=REPORTS)
        await p.start(write_report)
        await p.enqueue(write_report, "november")
        await both_ended.wait()
        entry = await store.get("november")
        print("in the store:", json.loads(entry.value or b"")["text"])
        await p.stop()
        await p.js.delete_stream(STREAM)
        await p.js.delete_key_value(REPORTS)


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=os.environ.get("BACKEND", "asyncio"))
