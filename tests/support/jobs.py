"""Helpers for tests of jobs against a real server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from nats_jobs import JobHandle
from nats_jobs.events import Event
from nats_jobs.jobs._engine import Engine

E = TypeVar("E", bound=Event)

LIMIT = 30.0


async def until(condition: Callable[[], object], seconds: float = LIMIT) -> None:
    """Wait until `condition()` holds, or is awaited to something that does."""
    with anyio.fail_after(seconds):
        while True:
            outcome = condition()
            if isinstance(outcome, Awaitable):
                outcome = await outcome

            if outcome:
                return

            await anyio.sleep(0.01)


def engine_of(handle: JobHandle[Any]) -> Engine:
    """Return what performs the jobs of a worker that was set up."""
    engine = handle._worker.engine
    assert engine is not None
    return engine


async def until_empty(js: JetStreamContext, stream: str) -> None:
    """Wait until every message of a stream is settled."""

    async def empty() -> bool:
        return (await js.stream_info(stream)).state.messages == 0

    await until(empty)


async def stands(js: JetStreamContext, stream: str) -> bool:
    """Whether the consumer of a definition is there."""
    try:
        return bool(await js.consumer_info(stream, f"{stream}Consumer"))
    except NotFoundError:
        return False


async def in_stream(js: JetStreamContext, stream: str) -> int:
    return int((await js.stream_info(stream)).state.messages)


class Seen:
    """Collects events: give it as `on_event`, or anything callable."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_for(self, kind: type[E], count: int = 1) -> list[E]:
        """Wait until `count` events of a kind were seen."""
        await until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)
