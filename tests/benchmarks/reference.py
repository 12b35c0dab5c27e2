"""The reference: raw nats-py on asyncio, as its users write it by hand. One process does one run.

`fetch(256)`, the job at once, an ack that nobody confirms: less than a job system has to do, and what its
speed is measured against.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.errors import TimeoutError as FetchTimeout
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from benchmarks.ledger import Ledger, payload, resident_bytes
from benchmarks.percentiles import latency_figures
from benchmarks.runs import Order, answer, asked
from benchmarks.sender import send_from_outside, sent_at

__all__ = ()

Figures = dict[str, Any]

_FETCH = 256
_WAIT = 5.0
_WARM = 10_000
_AT_ONCE = 10_000
_SETTLE = 1.0


async def drain(order: Order, js: JetStreamContext) -> Figures:
    """Perform what is queued. From the first start until the stream is seen to be empty."""
    ledger = Ledger(order.run.n)
    if order.run.sleep:
        await _perform_asleep(order, js, ledger)
    else:
        await _perform(order, js, ledger)

    await _seen_empty(js, order)
    return ledger.figures()


async def memory(order: Order, js: JetStreamContext) -> Figures:
    """As drain; and how the memory of this process grew after the first jobs."""
    warm: list[int] = []
    ledger = Ledger(order.run.n, at=min(_WARM, order.run.n), reached=lambda: warm.append(resident_bytes()))
    await _perform(order, js, ledger)
    await _seen_empty(js, order)
    end = resident_bytes()
    return {**ledger.figures(), "growth_mb": (end - warm[0]) / 1e6, "resident_mb": end / 1e6}


async def startup(order: Order, js: JetStreamContext) -> Figures:
    """From the start of this process, interpreter and imports included, to the first line of a queued job."""
    ledger = Ledger(order.run.n)
    await _perform(order, js, ledger)
    await _seen_empty(js, order)
    return {**ledger.figures(), "startup_ms": (ledger.first_start - order.spawned_at) * 1e3}


async def latency(order: Order, js: JetStreamContext) -> Figures:
    """From just before a message is sent, by someone else, to the first line of its job."""
    run, seconds = order.run, list[float]()
    messages = await _messages(order, js)
    loop = asyncio.create_task(_note_arrivals(messages, seconds, run.n))
    await asyncio.sleep(_SETTLE)
    sender = send_from_outside(order.url, order.streams, run.n, run.payload, run.seconds)
    try:
        await loop
        await _seen_empty(js, order)
        return latency_figures(seconds)
    finally:
        sender.kill()
        sender.wait()


async def _note_arrivals(messages: AsyncIterator[Msg], seconds: list[float], n: int) -> None:
    async for message in messages:
        seconds.append(time.monotonic() - sent_at(message.data))
        await message.ack()
        if len(seconds) == n:
            return


async def idle(order: Order, js: JetStreamContext) -> Figures:
    """The share of a core that a pull loop uses that gets nothing."""
    messages = await _messages(order, js)
    loop = asyncio.create_task(_note_arrivals(messages, [], 1))
    await asyncio.sleep(_SETTLE)
    cpu, since = time.process_time(), time.monotonic()
    await asyncio.sleep(order.run.seconds)
    figures = {"cpu_percent": (time.process_time() - cpu) / (time.monotonic() - since) * 100}
    loop.cancel()
    return figures


async def enqueue_many(order: Order, js: JetStreamContext) -> Figures:
    """`publish_async`, ten thousand at a time, every one confirmed; perhaps with the headers that ours have."""
    run, subject = order.run, order.streams[0]
    data = [payload(index, run.payload) for index in range(run.n)]
    numbers = count()

    def headers() -> dict[str, str] | None:
        if not run.labelled:
            return None

        return {"Nats-Msg-Id": f"{subject}-{next(numbers)}", "Content-Type": "application/msgpack"}

    since = time.monotonic()
    for first in range(0, run.n, _AT_ONCE):
        await asyncio.gather(
            *[
                await js.publish_async(subject, one, headers=headers())
                for one in data[first : first + _AT_ONCE]
            ]
        )

    return {"rate": run.n / (time.monotonic() - since)}


async def enqueue(order: Order, js: JetStreamContext) -> Figures:
    """One awaited publish for each job."""
    run, subject = order.run, order.streams[0]
    data = [payload(index, run.payload) for index in range(run.n)]
    since = time.monotonic()
    for one in data:
        await js.publish(subject, one)

    return {"rate": run.n / (time.monotonic() - since)}


async def _messages(order: Order, js: JetStreamContext) -> AsyncIterator[Msg]:
    config = ConsumerConfig(max_ack_pending=20_000)
    subscription = await js.pull_subscribe(order.streams[0], durable="reference", config=config)

    async def fetched() -> AsyncIterator[Msg]:
        while True:
            try:
                for message in await subscription.fetch(_FETCH, timeout=_WAIT):
                    yield message
            except FetchTimeout:
                continue

    return fetched()


async def _perform(order: Order, js: JetStreamContext, ledger: Ledger) -> None:
    config = ConsumerConfig(max_ack_pending=20_000)
    subscription = await js.pull_subscribe(order.streams[0], durable="reference", config=config)
    while not ledger.complete:
        for message in await subscription.fetch(_FETCH, timeout=_WAIT):
            await _job(ledger, message.data)
            await message.ack()


async def _job(ledger: Ledger, data: bytes) -> None:
    ledger.end(ledger.start(data))


async def _perform_asleep(order: Order, js: JetStreamContext, ledger: Ledger) -> None:
    """A task for each message, as many at a time as the others may have."""
    free = asyncio.Semaphore(order.run.concurrency)
    taken = 0

    async def perform(message: Msg) -> None:
        index = ledger.start(message.data)
        await asyncio.sleep(order.run.sleep)
        ledger.end(index)
        await message.ack()
        free.release()

    async with asyncio.TaskGroup() as tasks:
        async for message in await _messages(order, js):
            await free.acquire()
            tasks.create_task(perform(message))
            taken += 1
            if taken == order.run.n:
                return


async def _seen_empty(js: JetStreamContext, order: Order) -> None:
    while (await js.stream_info(order.streams[0])).state.messages:
        pass


KINDS: dict[str, Callable[[Order, JetStreamContext], Awaitable[Figures]]] = {
    "drain": drain,
    "memory": memory,
    "startup": startup,
    "latency": latency,
    "idle": idle,
    "enqueue": enqueue,
    "enqueue_many": enqueue_many,
}


async def main(order: Order) -> Figures:
    client = await nats.connect(order.url)
    try:
        return await KINDS[order.run.kind](order, client.jetstream())
    finally:
        await client.close()


if __name__ == "__main__":
    answer(asyncio.run(main(asked())))
    sys.exit(0)
