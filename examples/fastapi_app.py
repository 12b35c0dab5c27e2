"""A FastAPI app and its jobs: the processor is opened and closed by the app's lifespan.

Serve it:  uvicorn fastapi_app:app      or      hypercorn fastapi_app:app   (also with --worker-class trio)

A request enqueues, and a worker in the same process performs. An app that only enqueues leaves out `p.start` and
`p.stop`. When the server is told to end, it finishes its requests, and `p.stop` gives running jobs their grace.
A processor that fails, as when its stream is deleted, ends the app: nothing answers for jobs that nobody performs.

Try it:  python examples/fastapi_app.py [nats://127.0.0.1:4222]      (BACKEND=trio runs it on Trio)
Without a URL it starts a NATS server of its own. This needs `fastapi` and `httpx2`.

Prints::

    202 {'job': 1}
    a mail to ada@example.org
"""

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from queue import Queue
from secrets import token_hex
from typing import Annotated, Literal

import anyio
from anyio.from_thread import start_blocking_portal
from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient

from nats_jobs import Job, JobProcessor, codecs, job, job_processor
from nats_jobs.server import run_server

BACKEND: Literal["asyncio", "trio"] = "trio" if os.environ.get("BACKEND") == "trio" else "asyncio"
STREAM = os.environ.get("MAILS", f"MAILS_{token_hex(4)}")  # no other stream has this name
outgoing: Queue[str] = Queue()


@job(STREAM, codec=codecs.TEXT)
async def send_mail(job: Job[str]) -> None:
    outgoing.put(job.payload)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    try:
        async with job_processor() as app.state.jobs:
            await app.state.jobs.start(send_mail)
            yield
            await app.state.jobs.stop()
    except Exception:
        logging.exception("the processor has failed, and so ends the app")
        # Servers go on without a lifespan that has failed, unless they are told to end.
        signal.raise_signal(signal.SIGTERM)
        raise


def jobs(request: Request) -> JobProcessor:
    p: JobProcessor = request.app.state.jobs
    return p


app = FastAPI(lifespan=lifespan)


@app.post("/signup", status_code=202)
async def signup(address: str, p: Annotated[JobProcessor, Depends(jobs)]) -> dict[str, int]:
    stored = await p.enqueue(send_mail, address, id=f"welcome-{address}")
    return {"job": stored.sequence}


def try_out(url: str) -> None:
    os.environ["NATS_URL"] = url
    with TestClient(app, backend=BACKEND) as client:
        answer = client.post("/signup", params={"address": "ada@example.org"})
        print(answer.status_code, answer.json())
        print("a mail to", outgoing.get(timeout=10))

    anyio.run(clear, url)


async def clear(url: str) -> None:
    async with job_processor(url) as p:
        await p.js.delete_stream(STREAM)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        try_out(sys.argv[1])
    else:
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(run_server()) as server:
            try_out(server.url)
