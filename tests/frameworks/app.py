"""A Starlette app: a request enqueues a job that takes its time. With PERFORM=no it has no worker."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from nats_jobs import Job, job, job_processor


@job("SLOW")
async def work(job: Job[int]) -> None:
    print("begun", flush=True)
    await anyio.sleep(job.payload)
    print("performed", flush=True)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with job_processor() as app.state.jobs:
        if os.environ["PERFORM"] == "yes":
            await app.state.jobs.start(work)

        yield
        await app.state.jobs.stop()

    print("left", flush=True)


async def enqueue(request: Request) -> PlainTextResponse:
    stored = await request.app.state.jobs.enqueue(work, 1, subject="SLOW")
    return PlainTextResponse(str(stored.sequence))


app = Starlette(routes=[Route("/", enqueue, methods=["POST"])], lifespan=lifespan)
