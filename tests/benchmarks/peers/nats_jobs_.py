"""nats-jobs for Python. Variants: '' is asyncio; 'uvloop'; 'trio'. Jobs are enqueued and performed as its users do it.

Acks are confirmed; each job has its own cancel scope and context variables. `many` is `enqueue_many`.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import Any, Self

import anyio

from nats_jobs import Job, JobDef, job_processor

from ._common import (  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    ROLE,
    nats_cli,
    venv_bin,
)

INFO = {
    "server": "nats",
    "storages": ("file", "mem"),
    "many": "enqueue_many",
    "guarantee": "confirmed ack after run; nak with backoff, 5 attempts, then dead letter; ack_wait 10 s, extended; file",
}
VARIANT = os.environ.get("BENCH_VARIANT", "")
BACKEND_LOOP = "trio" if "trio" in VARIANT else "asyncio"
SUBJECT = "bench.x"


def setup(ctx: Any) -> None:
    nats_cli(ctx).fresh_stream("BENCH", SUBJECT, "memory" if ctx.storage == "mem" else "file")


def pending(ctx: Any) -> int:
    return int(nats_cli(ctx).messages("BENCH"))


def worker_cmd(ctx: Any) -> tuple[list[str], dict[str, str]]:
    return [venv_bin(ctx, "python"), "-m", "adapters.nats_jobs_"], {}


class Producer:
    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self._p = await self._stack.enter_async_context(job_processor(os.environ["BENCH_URL"]))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def one(self, payload: str) -> None:
        await self._p.enqueue(SUBJECT, payload)

    async def many(self, payloads: list[str]) -> None:
        await self._p.enqueue_many(SUBJECT, payloads)


async def main() -> None:
    from benchlib import job  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    work = job.work_anyio if BACKEND_LOOP == "trio" else job.work

    async def perform(one: Job[str]) -> None:
        await work(one.payload)

    async with job_processor(job.URL) as p:
        p.start_soon(JobDef(stream="BENCH", perform=perform, concurrency=job.CONC))


if ROLE == "worker" and __name__ == "__main__":
    anyio.run(main, backend=BACKEND_LOOP, backend_options={"use_uvloop": True} if "uvloop" in VARIANT else {})
