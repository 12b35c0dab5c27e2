"""A program without an event loop enqueues: a view of Django or Flask, a script, a thread.

The producer is a global, as the settings of a web application are. It connects when the first job is enqueued, in a
thread of its own, and may be used by any number of threads, and after a fork. A worker performs the jobs; here it is
in the same program, so that there is something to see.

Run it:  python examples/sync_producer.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own.

Prints::

    201 Created, job 1
    200 OK, already asked for
    a mail to ada@example.org
"""

import os
import sys
from secrets import token_hex

import anyio
from anyio import to_thread

from nats_jobs import Job, codecs, job, job_processor
from nats_jobs.server import run_server
from nats_jobs.sync import Producer

BACKEND = os.environ.get("BACKEND", "asyncio")
STREAM = f"MAILS_{token_hex(4)}"  # no other stream has this name
outgoing: list[str] = []
sent = anyio.Event()


@job(STREAM, codec=codecs.TEXT)
async def send_mail(job: Job[str]) -> None:
    outgoing.append(job.payload)
    sent.set()


def signup(producer: Producer, address: str) -> str:
    """What a web framework calls in one of its threads."""
    stored = producer.enqueue(send_mail, address, id=f"welcome-{address}")
    return "200 OK, already asked for" if stored.duplicate else f"201 Created, job {stored.sequence}"


def serve(url: str) -> None:
    with Producer(url, backend=BACKEND) as producer:
        print(signup(producer, "ada@example.org"))
        print(signup(producer, "ada@example.org"))


async def work(url: str) -> None:
    async with job_processor(url) as p:
        await p.start(send_mail)  # sets up the stream
        await to_thread.run_sync(serve, url)
        await sent.wait()
        print("a mail to", *outgoing)
        await p.stop()
        await p.js.delete_stream(STREAM)


async def main() -> None:
    if len(sys.argv) > 1:
        await work(sys.argv[1])
    else:
        async with run_server() as server:
            await work(server.url)


if __name__ == "__main__":
    anyio.run(main, backend=BACKEND)
