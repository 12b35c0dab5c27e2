"""Helpers for tests of dead letters: making some, and a delivery in hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from nats.js.api import StreamConfig

from nats_jobs import Job, JobDef, JobProcessor, Reject, job_processor
from nats_jobs.dead_letters import DeadLetter
from nats_jobs.jetstream import Delivery
from support.jobs import LIMIT, until_empty


def hopeless(
    stream: str,
    error: Callable[[Job[Any]], Exception] = lambda job: Reject(f"no way: {job.payload!r}"),
    subjects: Sequence[str] = (),
) -> JobDef[Any]:
    """Define jobs that fail with `error(job)`, and have one attempt."""

    async def perform(job: Job[Any]) -> None:
        raise error(job)

    config = StreamConfig(subjects=list(subjects)) if subjects else None
    return JobDef(stream=stream, perform=perform, num_attempts=1, stream_config=config)


async def park_jobs(url: str, defn: JobDef[Any], payloads: Sequence[Any], **options: Any) -> None:
    """Have one dead letter made for each payload."""
    async with job_processor(url) as p:
        await p.start(defn)
        for payload in payloads:
            await p.enqueue(defn, payload, **options)

        await until_empty(p.js, defn.stream)
        await p.stop()


async def work_off(url: str, defn: JobDef[Any]) -> None:
    """Perform what is in the stream."""
    await park_jobs(url, defn, [])


async def letters_of(p: JobProcessor, stream: str, **options: Any) -> list[DeadLetter]:
    return [letter async for letter in p.dead_letters.browse(stream=stream, **options)]


async def pull_one(p: JobProcessor, stream: str) -> Delivery:
    """Take the next job of a stream, which has no worker, into the hand."""
    config = {"stream_name": stream, "config": {"durable_name": "hand", "ack_policy": "explicit"}}
    await p.connection.request(f"$JS.API.CONSUMER.CREATE.{stream}.hand", json.dumps(config).encode())
    inbox = p.connection.new_inbox()
    async with p.connection.subscribe(inbox) as messages:
        await p.connection.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.hand", b'{"batch":1}', reply=inbox)
        with anyio.fail_after(LIMIT):
            return Delivery(p.connection, await anext(aiter(messages)), 0.0)
