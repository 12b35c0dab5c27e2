"""Callables of every kind as handlers: performed, or refused; never acknowledged with work in hand."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from anyio.from_thread import check_cancelled
from anyio.lowlevel import checkpoint
from nats.js.api import ConsumerConfig

from nats_jobs import CancelReason, Job, JobDef, job_processor
from nats_jobs.errors import HandlerReturned, UsageError
from nats_jobs.events import Complete, DeadLettered, Error, Interrupted, LeaseLost
from support.jobs import Seen, until, until_empty

pytestmark = pytest.mark.anyio

performed: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_performed() -> None:
    performed.clear()


async def work(job: Job[Any]) -> None:
    await checkpoint()
    performed.append(job.payload)


def plain(job: Job[Any]) -> None:
    performed.append(job.payload)


async def numbers(job: Job[Any]) -> AsyncIterator[int]:
    yield 1


def numbers_at_once(job: Job[Any]) -> Iterator[int]:
    yield 1


class Handler:
    async def __call__(self, job: Job[Any]) -> None:
        await work(job)

    async def method(self, job: Job[Any]) -> None:
        await work(job)

    def plain_method(self, job: Job[Any]) -> None:
        plain(job)


class Awaitable:
    def __init__(self, job: Job[Any]) -> None:
        self._job = job

    def __await__(self) -> Any:
        return work(self._job).__await__()


def wraps(function: Callable[[Job[Any]], Any]) -> Callable[[Job[Any]], Any]:
    @functools.wraps(function)
    def inner(job: Job[Any]) -> Any:
        return function(job)

    return inner


async def gives(job: Job[Any]) -> Any:
    return work(job)


async def gives_twice(job: Job[Any]) -> Any:
    return gives(job)


def second(first: object, job: Job[Any]) -> None:
    plain(job)


PERFORMED: dict[str, Callable[..., Any]] = {
    "coroutine function": work,
    "plain function": plain,
    "bound coroutine method": Handler().method,
    "bound method": Handler().plain_method,
    "callable object": Handler(),
    "partial of a coroutine function": functools.partial(work),
    "partial of a callable object": functools.partial(Handler()),
    "partial of a plain function": functools.partial(second, None),
    "wraps of a coroutine function": wraps(work),
    "wraps of wraps": wraps(wraps(work)),
    "wraps of a plain function": wraps(plain),
    "partial of wraps": functools.partial(wraps(work)),
    "lru_cache of a coroutine function": functools.lru_cache(work),
    "lru_cache of a plain function": functools.lru_cache(plain),
    "a class whose objects can be awaited": Awaitable,
    "a coroutine function that forgets to await": gives,
    "a lambda": lambda job: work(job),  # noqa: PLW0108
}


@pytest.mark.parametrize("kind", PERFORMED)
async def test_a_handler_of_this_kind_is_performed(url: str, name: str, kind: str) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=PERFORMED[kind], num_attempts=1)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue_many(defn, [1, 2])
        await until_empty(p.js, name)
        await p.stop()

    assert sorted(performed) == [1, 2]
    assert len(seen.of(Complete)) == 2
    assert not seen.of(Error)


async def returns_a_generator(job: Job[Any]) -> Any:
    return numbers_at_once(job)


RETURNS: dict[str, Callable[..., Any]] = {
    "wraps of an async generator": wraps(numbers),
    "wraps of a generator": wraps(numbers_at_once),
    "a future": lambda job: Future(),
    "a coroutine function that returns a generator": returns_a_generator,
    "a coroutine that returns a coroutine": wraps(gives_twice),
}


@pytest.mark.parametrize("kind", RETURNS)
async def test_a_job_is_not_acknowledged_for_work_that_is_returned(url: str, name: str, kind: str) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=RETURNS[kind], num_attempts=1)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until_empty(p.js, name)
        await p.stop()

    assert not performed
    assert [type(event.error) for event in seen.of(Error)] == [HandlerReturned]
    assert len(seen.of(DeadLettered)) == 1


@pytest.mark.parametrize("run_in", ["thread", "process"])
@pytest.mark.parametrize(
    "perform",
    [numbers, numbers_at_once, functools.partial(numbers), functools.partial(numbers_at_once)],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_generator_functions_are_refused_when_defined(perform: Any, run_in: Any) -> None:
    with pytest.raises(UsageError, match="generator function"):
        JobDef(stream="S", perform=perform, run_in=run_in)


# What AnyIO tells a thread...


def poll(job: Job[Any]) -> None:
    performed.append("began")
    try:
        while True:
            check_cancelled()
            time.sleep(0.01)
    except BaseException:
        performed.append(job.reason)
        raise


async def test_a_thread_is_told_by_anyio_that_its_job_ran_past_its_timeout(url: str, name: str) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=poll, timeout=0.2, num_attempts=1)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until_empty(p.js, name)
        await p.stop()

    assert performed == ["began", CancelReason.TIMEOUT]
    assert [event.reason for event in seen.of(DeadLettered)] == ["exhausted"]


async def test_a_thread_is_told_by_anyio_that_its_worker_stops(url: str, name: str) -> None:
    seen = Seen()
    defn = JobDef[Any](stream=name, perform=poll)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until(lambda: performed)
        await p.stop(grace=0)

    assert performed == ["began", CancelReason.STOP]
    assert [event.reason for event in seen.of(Interrupted)] == ["stop"]


async def test_a_thread_is_told_by_anyio_that_its_lease_is_lost(url: str, name: str) -> None:
    seen = Seen()

    def once(job: Job[Any]) -> None:
        if job.attempt == 1:
            poll(job)

    defn = JobDef[Any](
        stream=name,
        perform=once,
        auto_extend_ack_timeout=False,
        consumer_config=ConsumerConfig(ack_wait=1),
    )
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until_empty(p.js, name)
        await p.stop()

    assert performed == ["began", CancelReason.LEASE_LOST]
    assert len(seen.of(LeaseLost)) == 1
    assert [event.attempt for event in seen.of(Complete)] == [2]


async def test_what_a_thread_returns_in_spite_of_a_stop_is_done(url: str, name: str) -> None:
    seen = Seen()

    def finish(job: Job[Any]) -> None:
        performed.append("began")
        try:
            poll(job)
        except BaseException:
            performed.append("finished")

    defn = JobDef[Any](stream=name, perform=finish)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until(lambda: performed)
        await p.stop(grace=0)

    assert performed[-1] == "finished"
    assert len(seen.of(Complete)) == 1
