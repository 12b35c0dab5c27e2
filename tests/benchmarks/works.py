"""The runs of nats-jobs itself, by its public API. One process does one run."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from nats.js import JetStreamContext

from benchmarks.fleet import fleet
from benchmarks.ledger import Ledger, payload, resident_bytes
from benchmarks.percentiles import latency_figures
from benchmarks.runs import Order, answer, asked
from benchmarks.sender import send_from_outside, sent_at
from nats_jobs import Job, JobDef, JobProcessor, job_processor

__all__ = ()

Figures = dict[str, Any]

_WARM = 10_000
_AT_ONCE = 10_000
_SETTLE = 1.0


async def drain(order: Order, p: JobProcessor) -> Figures:
    """Perform what is queued. From the first start until the stream is seen to be empty."""
    ledger, all_ended = _ledger(order)
    p.start_soon(_definition(order, order.streams[0], ledger))
    await all_ended.wait()
    await seen_empty(p.js, order)
    return ledger.figures()


async def live(order: Order, p: JobProcessor) -> Figures:
    """Perform what is sent once every definition has been started; the first `busy` of them get the jobs."""
    ledger, all_ended = _ledger(order)
    for stream in order.streams:
        await p.start(_definition(order, stream, ledger))

    run = order.run
    sender = send_from_outside(order.url, order.streams[: run.busy], run.n, run.payload, 0.0)
    try:
        await all_ended.wait()
        await seen_empty(p.js, order)
        return ledger.figures()
    finally:
        sender.kill()
        sender.wait()


async def memory(order: Order, p: JobProcessor) -> Figures:
    """As drain; and how the memory of this process grew after the first jobs."""
    warm: list[int] = []
    ledger, all_ended = _ledger(order, lambda: warm.append(resident_bytes()))
    p.start_soon(_definition(order, order.streams[0], ledger))
    await all_ended.wait()
    await seen_empty(p.js, order)
    end = resident_bytes()
    return {**ledger.figures(), "growth_mb": (end - warm[0]) / 1e6, "resident_mb": end / 1e6}


async def startup(order: Order, p: JobProcessor) -> Figures:
    """From the start of this process, interpreter and imports included, to the first line of a queued job."""
    ledger, all_ended = _ledger(order)
    p.start_soon(_definition(order, order.streams[0], ledger))
    await all_ended.wait()
    await seen_empty(p.js, order)
    return {**ledger.figures(), "startup_ms": (ledger.first_start - order.spawned_at) * 1e3}


async def latency(order: Order, p: JobProcessor) -> Figures:
    """From just before a message is sent, by someone else, to the first line of its job; the worker is idle."""
    run, seconds, all_here = order.run, list[float](), anyio.Event()

    async def perform(job: Job[bytes]) -> None:
        seconds.append(time.monotonic() - sent_at(job.payload))
        if len(seconds) == run.n:
            all_here.set()

    await p.start(JobDef(stream=order.streams[0], perform=perform, concurrency=run.concurrency))
    await anyio.sleep(_SETTLE)
    sender = send_from_outside(order.url, order.streams, run.n, run.payload, run.seconds)
    try:
        await all_here.wait()
        await seen_empty(p.js, order)
        return latency_figures(seconds)
    finally:
        sender.kill()
        sender.wait()


async def idle(order: Order, p: JobProcessor) -> Figures:
    """The share of a core that a worker uses that has nothing to do."""
    ledger, _ = _ledger(order)
    await p.start(_definition(order, order.streams[0], ledger))
    await anyio.sleep(_SETTLE)
    cpu, since = time.process_time(), time.monotonic()
    await anyio.sleep(order.run.seconds)
    return {"cpu_percent": (time.process_time() - cpu) / (time.monotonic() - since) * 100}


async def enqueue(order: Order, p: JobProcessor) -> Figures:
    """One awaited call for each job."""
    run, subject = order.run, order.streams[0]
    texts = [payload(index, run.payload).decode() for index in range(run.n)]
    since = time.monotonic()
    for text in texts:
        await p.enqueue(subject, text)

    return {"rate": run.n / (time.monotonic() - since)}


async def enqueue_many(order: Order, p: JobProcessor) -> Figures:
    """Ten thousand jobs in each call."""
    run, subject = order.run, order.streams[0]
    texts = [payload(index, run.payload).decode() for index in range(run.n)]
    since = time.monotonic()
    for first in range(0, run.n, _AT_ONCE):
        await p.enqueue_many(subject, texts[first : first + _AT_ONCE])

    return {"rate": run.n / (time.monotonic() - since)}


async def seen_empty(js: JetStreamContext, order: Order) -> None:
    """Ask the server until it has no message left: then every ack has arrived there."""
    left = 1
    while left:
        # One question, however many streams there are.
        infos = await js.streams_info() if order.run.busy > 1 else [await js.stream_info(order.streams[0])]
        left = sum(info.state.messages for info in infos)


def _ledger(order: Order, reached: Callable[[], None] = lambda: None) -> tuple[Ledger, anyio.Event]:
    all_ended = anyio.Event()
    ledger = Ledger(order.run.n, done=all_ended.set, at=min(_WARM, order.run.n), reached=reached)
    return ledger, all_ended


def _definition(order: Order, stream: str, ledger: Ledger) -> JobDef[Any]:
    seconds = order.run.sleep

    async def nothing(job: Job[bytes | str]) -> None:
        ledger.end(ledger.start(job.payload))

    async def asleep(job: Job[bytes | str]) -> None:
        index = ledger.start(job.payload)
        await anyio.sleep(seconds)
        ledger.end(index)

    return JobDef(stream=stream, perform=asleep if seconds else nothing, concurrency=order.run.concurrency)


KINDS: dict[str, Callable[[Order, JobProcessor], Awaitable[Figures]]] = {
    "drain": drain,
    "live": live,
    "memory": memory,
    "startup": startup,
    "latency": latency,
    "idle": idle,
    "fleet": fleet,
    "enqueue": enqueue,
    "enqueue_many": enqueue_many,
}


async def main(order: Order) -> Figures:
    async with job_processor(order.url, stop_grace=0) as p:
        figures = await KINDS[order.run.kind](order, p)
        await p.stop()
        return figures


if __name__ == "__main__":
    order = asked()
    backend = "trio" if order.run.backend == "trio" else "asyncio"
    options = {"use_uvloop": True} if order.run.backend == "uvloop" else {}
    answer(anyio.run(main, order, backend=backend, backend_options=options))
    sys.exit(0)
