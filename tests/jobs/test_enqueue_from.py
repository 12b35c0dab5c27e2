"""Enqueueing from a source: sync or async, of any length, and true about what is stored when something goes wrong."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from nats.js.api import StreamConfig

from nats_jobs import EnqueueRequest, Job, JobDef, JobProcessor, Middleware, codecs, job_processor
from nats_jobs.errors import BadSubject, EncodeError, EnqueueFailed, UsageError
from nats_jobs.jobs._enqueue_from import PART_SIZE
from support.jobs import in_stream, until

pytestmark = pytest.mark.anyio

MANY = 2 * PART_SIZE + 10


@asynccontextmanager
async def producer(url: str, name: str, **options: Any) -> AsyncIterator[JobProcessor]:
    async with job_processor(url, **options) as p:
        await p.js.add_stream(StreamConfig(name=name))
        yield p


async def payload_at(p: JobProcessor, name: str, sequence: int) -> Any:
    return codecs.MSGPACK.decode((await p.js.get_msg(name, sequence)).data or b"")


async def numbers(count: int) -> AsyncGenerator[int, None]:
    for number in range(count):
        yield number


@pytest.mark.parametrize("source", [range, numbers])
async def test_all_that_a_source_has_is_stored_in_its_order(url: str, name: str, source: Any) -> None:
    told: list[int] = []
    async with producer(url, name) as p:
        assert await p.enqueue_from(name, source(MANY), on_progress=told.append) == MANY
        assert await in_stream(p.js, name) == MANY
        assert await payload_at(p, name, MANY) == MANY - 1

    assert told == [PART_SIZE, 2 * PART_SIZE, MANY]


async def test_no_more_is_read_than_what_is_sent_next(url: str, name: str) -> None:
    """A million payloads would not fit: here each is looked at, whether somebody holds it still."""

    class Row:
        def __init__(self, number: int) -> None:
            self.number = number

    alive: weakref.WeakSet[Row] = weakref.WeakSet()
    most = 0

    def rows() -> Iterator[Row]:
        nonlocal most
        for number in range(MANY):
            row = Row(number)
            alive.add(row)
            most = max(most, len(alive))
            yield row

    class RowCodec:
        name = "row"
        content_type = "text/x-row"

        def encode(self, value: Any) -> bytes:
            return b"%d" % value.number

        def decode(self, data: bytes) -> Any:
            return int(data)

    async def perform(job: Job[Any]) -> None: ...

    defn: JobDef[Any] = JobDef(stream=name, perform=perform, codec=RowCodec())
    async with producer(url, name) as p:
        assert await p.enqueue_from(defn, rows()) == MANY

    assert most <= PART_SIZE + 1


async def test_an_empty_source_is_fine(url: str, name: str) -> None:
    async with producer(url, name) as p:
        assert await p.enqueue_from(name, []) == 0
        assert await p.enqueue_from(name, numbers(0)) == 0


async def test_a_source_that_is_read_again_with_its_ids_is_not_stored_again(url: str, name: str) -> None:
    async with producer(url, name) as p:
        assert await p.enqueue_from(name, range(10), id_of=str) == 10
        assert await p.enqueue_from(name, range(12), id_of=str) == 12
        assert await in_stream(p.js, name) == 12


async def test_what_a_source_had_handed_over_when_it_raises_is_stored(url: str, name: str) -> None:
    def breaking() -> Iterator[int]:
        yield from range(3)
        raise ZeroDivisionError("the file ends in the middle of a line")

    told: list[int] = []
    async with producer(url, name) as p:
        with pytest.raises(ZeroDivisionError):
            await p.enqueue_from(name, breaking(), on_progress=told.append)

        assert await in_stream(p.js, name) == 3

    assert told == [3]


async def test_a_bad_payload_behind_others_is_named_with_those_that_were_not_sent_for_it(
    url: str, name: str
) -> None:
    bad = PART_SIZE + 5
    payloads: list[object] = [*range(MANY)]
    payloads[bad] = object()
    async with producer(url, name) as p:
        with pytest.raises(EnqueueFailed) as caught:
            await p.enqueue_from(name, payloads)

        assert [*caught.value.failures] == [*range(PART_SIZE, 2 * PART_SIZE)]
        assert isinstance(caught.value.failures[bad], EncodeError)
        assert await in_stream(p.js, name) == PART_SIZE


async def test_one_that_is_too_large_is_named_by_its_position_in_the_source(url: str, name: str) -> None:
    async with producer(url, name) as p:
        with pytest.raises(EnqueueFailed) as caught:
            await p.enqueue_from(
                name, ["x" * (2_000_000 if n == PART_SIZE + 1 else 1) for n in range(PART_SIZE + 3)]
            )

        assert [*caught.value.failures] == [PART_SIZE + 1]
        assert await in_stream(p.js, name) == PART_SIZE + 2


async def test_bad_input_is_refused_before_anything_is_sent(url: str, name: str) -> None:
    async with producer(url, name) as p:
        with pytest.raises(EncodeError):
            await p.enqueue_from(name, [1, object()])

        with pytest.raises(UsageError, match="id is 7"):
            await p.enqueue_from(name, [7], id_of=lambda payload: payload)

        with pytest.raises(BadSubject):
            await p.enqueue_from("a b", [1])

        assert await in_stream(p.js, name) == 0


async def test_an_async_generator_is_closed_when_it_is_not_read_to_its_end(url: str, name: str) -> None:
    closed = anyio.Event()

    async def endless() -> AsyncGenerator[object, None]:
        try:
            while True:
                yield object()
        finally:
            closed.set()

    async with producer(url, name) as p:
        with pytest.raises(EncodeError):
            await p.enqueue_from(name, endless())

        assert closed.is_set()


async def test_an_endless_source_ends_when_its_reader_is_cancelled(url: str, name: str) -> None:
    async def endless() -> AsyncGenerator[int, None]:
        number = 0
        while True:
            yield number
            number += 1

    stored = 0

    def note(count: int) -> None:
        nonlocal stored
        stored = count

    async with producer(url, name) as p:
        async with anyio.create_task_group() as group:

            async def enqueue() -> None:
                await p.enqueue_from(name, endless(), on_progress=note)

            group.start_soon(enqueue)
            await until(lambda: stored > PART_SIZE)
            group.cancel_scope.cancel("the test is over")

        assert await in_stream(p.js, name) >= stored


async def test_a_middleware_sees_each_part(url: str, name: str) -> None:
    parts: list[int] = []

    class Counting(Middleware):
        @asynccontextmanager
        async def around_enqueue(self, request: EnqueueRequest) -> AsyncIterator[None]:
            yield
            parts.append(len(request.enqueued))

    async with producer(url, name, middleware=[Counting()]) as p:
        await p.enqueue_from(name, range(PART_SIZE + 1))

    assert parts == [PART_SIZE, 1]
