"""Round trips done by hand on `nats_jobs.wire`: what one job, or one enqueue, costs without us around it."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from nats.js.api import AckPolicy, ConsumerConfig

from benchmarks.ledger import Ledger, payload
from benchmarks.runs import Order, answer, asked
from nats_jobs.jetstream import jetstream_context
from nats_jobs.wire import Connection, connect

__all__ = ()

Figures = dict[str, Any]


async def drain(order: Order, connection: Connection) -> Figures:
    """For each job: a pull of one, which waits at the server, and an ack, which is confirmed."""
    js, stream = jetstream_context(connection), order.streams[0]
    config = ConsumerConfig(durable_name="bare", ack_policy=AckPolicy.EXPLICIT)
    await js.add_consumer(stream, config)
    ledger = Ledger(order.run.n)
    pull = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.bare"
    inbox = connection.new_inbox()
    async with connection.subscribe(inbox) as deliveries:
        while not ledger.complete:
            connection.lowlevel.publish_nowait(pull, inbox, b"", b'{"batch":1,"expires":30000000000}')
            message = await deliveries.receive()
            ledger.end(ledger.start(message.data))
            await connection.request(message.reply, b"+ACK")

    while (await js.stream_info(stream)).state.messages:
        await anyio.lowlevel.checkpoint()

    return ledger.figures()


async def enqueue(order: Order, connection: Connection) -> Figures:
    """For each job one request to the stream's subject."""
    run, subject = order.run, order.streams[0]
    data = [payload(index, run.payload) for index in range(run.n)]
    since = time.monotonic()
    for one in data:
        await connection.request(subject, one)

    return {"rate": run.n / (time.monotonic() - since)}


async def sleepers(order: Order, connection: Connection) -> Figures:
    """Only the sleep of each job, in as many tasks as jobs may run at once: what the event loop's timers allow."""
    run = order.run

    async def sleep_in_turn() -> None:
        for _ in range(run.n // run.concurrency):
            await anyio.sleep(run.sleep)

    since = time.monotonic()
    async with anyio.create_task_group() as tasks:
        for _ in range(run.concurrency):
            tasks.start_soon(sleep_in_turn)

    return {"rate": run.n / (time.monotonic() - since)}


KINDS: dict[str, Callable[[Order, Connection], Awaitable[Figures]]] = {
    "drain": drain,
    "enqueue": enqueue,
    "sleepers": sleepers,
}


async def main(order: Order) -> Figures:
    async with connect(order.url) as connection:
        return await KINDS[order.run.kind](order, connection)


if __name__ == "__main__":
    order = asked()
    backend = "trio" if order.run.backend == "trio" else "asyncio"
    options = {"use_uvloop": True} if order.run.backend == "uvloop" else {}
    answer(anyio.run(main, order, backend=backend, backend_options=options))
    sys.exit(0)
