"""Several processes that share the work of one stream, started and stopped by `nats-jobs worker --processes`.

Also the module that those processes are told to take their definition from.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from benchmarks.runs import INVALID, Order
from nats_jobs import Job, JobDef, JobProcessor

__all__ = ("fleet", "perform_nothing")

_STREAM = "BENCH_STREAM"
_CONCURRENCY = "BENCH_CONCURRENCY"
# From when on it is measured: by then all processes are at work.
_UNDER_WAY = 0.8
_LOOK_EVERY = 0.01


async def _nothing(job: Job[bytes | str]) -> None:
    pass


if _STREAM in os.environ:
    perform_nothing = JobDef[Any](
        stream=os.environ[_STREAM], perform=_nothing, concurrency=int(os.environ[_CONCURRENCY])
    )


async def fleet(order: Order, p: JobProcessor) -> dict[str, Any]:
    """Perform what is queued. The rate is that of the last 80 % of the jobs; each must have been delivered once."""
    stream, n = order.streams[0], order.run.n
    with _workers(order):
        left = await _look_until(p, stream, int(n * _UNDER_WAY))
        since = time.monotonic()
        await _look_until(p, stream, 0)
        seconds = time.monotonic() - since

    delivered = (await p.js.consumer_info(stream, f"{stream}Consumer")).delivered
    deliveries = delivered.consumer_seq if delivered else 0
    if deliveries != n:
        return {INVALID: f"{deliveries} deliveries of {n} jobs"}

    return {"rate": left / seconds}


@contextmanager
def _workers(order: Order) -> Iterator[None]:
    run = order.run
    command = [sys.executable, "-m", "nats_jobs", "worker", f"{__name__}:perform_nothing"]
    command += ["--server", order.url, "--backend", "trio" if run.backend == "trio" else "asyncio"]
    command += ["--processes", str(run.processes), "--grace", "0"]
    environment = {**os.environ, _STREAM: order.streams[0], _CONCURRENCY: str(run.concurrency)}
    process = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def _look_until(p: JobProcessor, stream: str, few: int) -> int:
    """Wait until the stream has no more messages than that, and return how many."""
    while True:
        messages: int = (await p.js.stream_info(stream)).state.messages
        if messages <= few:
            return messages

        await anyio.sleep(_LOOK_EVERY)
