"""The streams of a run: made and filled before it, looked at and deleted after it. All by the driver, not timed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from benchmarks.ledger import payload
from benchmarks.runs import Run
from nats_jobs import JobProcessor
from nats_jobs.jetstream import publish_many

__all__ = ("leftovers", "streams_for")

_AT_ONCE = 10_000
_numbers = count(1)


@asynccontextmanager
async def streams_for(run: Run, p: JobProcessor) -> AsyncIterator[tuple[str, ...]]:
    """Make fresh streams for a run, with its jobs in the first one if it needs them there."""
    names = tuple(f"BENCH_{next(_numbers)}" for _ in range(run.definitions))
    try:
        for name in names:
            await p.js.add_stream(
                StreamConfig(
                    name=name,
                    subjects=[name],
                    retention=RetentionPolicy.WORK_QUEUE,
                    storage=StorageType(run.storage),
                )
            )

        if run.fills:
            await _fill(run, p, names[0])

        yield names
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(30):
            for name in names:
                await p.js.delete_stream(name)


async def leftovers(run: Run, p: JobProcessor, streams: tuple[str, ...]) -> str:
    """Return what should not be there after a run, in words; empty when the streams are as they should be."""
    expected = run.n if run.kind.startswith("enqueue") else 0
    messages = 0
    for stream in streams:
        state = (await p.js.stream_info(stream)).state
        messages += state.messages
        for consumer in await p.js.consumers_info(stream):
            if consumer.num_pending or consumer.num_ack_pending:
                return f"{stream}: {consumer.num_pending} not delivered, {consumer.num_ack_pending} not acked"

    return "" if messages == expected else f"{messages} messages in the stream, not {expected}"


async def _fill(run: Run, p: JobProcessor, subject: str) -> None:
    for first in range(0, run.n, _AT_ONCE):
        data = [payload(index, run.payload) for index in range(first, min(run.n, first + _AT_ONCE))]
        if run.labelled:
            await p.enqueue_many(subject, [one.decode() for one in data])
        else:
            _, failures = await publish_many(p.connection, [(subject, b"", one) for one in data], timeout=20)
            if failures:
                raise ExceptionGroup("the stream could not be filled", list(failures.values()))
