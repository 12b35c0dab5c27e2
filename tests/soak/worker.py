"""The worker, in a process of its own; when it is asked, it tells what it consists of just now.

python -m soak.worker URL SOAK
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from typing import Any

import anyio

from benchmarks.ledger import resident_bytes
from nats_jobs import Job, JobDef, JobHandle, JobProcessor, job_processor
from soak.order import NUM_ATTEMPTS, SAMPLE, Soak

__all__ = ("NAME",)

NAME = "soak-worker"
"""By which the server knows its connection."""


async def perform(job: Job[int]) -> None:
    if job.payload < 0:
        raise ValueError("as it was enqueued to")


async def main(url: str, soak: Soak) -> None:
    defn = JobDef[int](
        stream=soak.stream,
        perform=perform,
        concurrency=soak.concurrency,
        num_attempts=NUM_ATTEMPTS,
        backoff=0,
    )
    async with job_processor(url, name=NAME, stop_signals=(signal.SIGTERM,)) as p:
        handle = await p.start(defn)
        async with anyio.create_task_group() as group:
            group.start_soon(tell, p, handle)
            await handle.wait_stopped()
            group.cancel_scope.cancel("the worker has stopped")


async def tell(p: JobProcessor, handle: JobHandle[int]) -> None:
    async with p.connection.subscribe(SAMPLE) as asked:
        async for question in asked:
            await question.respond(json.dumps(sample(p, handle)).encode())


def sample(p: JobProcessor, handle: JobHandle[int]) -> dict[str, float]:
    # What is only waiting to be collected is no growth.
    gc.collect()
    done = handle.statistics()
    return {
        "memory, MB": resident_bytes() / 1e6,
        "objects": len(gc.get_objects()),
        "tasks": tasks(),
        "subscriptions": len(p.connection.lowlevel.subscriptions),
        "open requests": len(p.connection.lowlevel.requests),
        "jobs in hand": done.running + done.waiting,
        "completed": done.completed,
        "dead letters": done.dead_lettered,
    }


def tasks() -> int:
    """Return how many tasks live in this event loop, those of the backend included."""
    if "trio" in sys.argv[2]:
        import trio

        return trio.lowlevel.current_statistics().tasks_living

    return len(asyncio.all_tasks())


if __name__ == "__main__":
    soak = Soak.from_json(sys.argv[2])
    options: dict[str, Any] = {"backend": "trio" if soak.backend == "trio" else "asyncio"}
    if soak.backend == "uvloop":
        options["backend_options"] = {"use_uvloop": True}

    anyio.run(main, sys.argv[1], soak, **options)
