"""Middleware: what a user wraps around attempts and enqueues is entered in order, and sees how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from nats_jobs import EnqueueRequest, Job, JobDef, Middleware, events, job_processor
from nats_jobs.errors import PublishRefused, UsageError
from nats_jobs.jobs import MiddlewareStack
from support.in_process import do_nothing
from support.jobs import Seen, until_empty

pytestmark = pytest.mark.anyio


class Noting(Middleware):
    """Notes in `seen` when each attempt begins, and how it ends."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    @asynccontextmanager
    async def around_attempt(self, job: Job[Any]) -> AsyncIterator[None]:
        self.seen.append(f"{self.name} begins {job.payload}")
        try:
            yield
        except BaseException as error:
            self.seen.append(f"{self.name} sees {type(error).__name__}, {job.reason and job.reason.value}")
            raise

        self.seen.append(f"{self.name} ends")


class Tracing(Middleware):
    def __init__(self) -> None:
        self.requests: list[EnqueueRequest] = []

    @asynccontextmanager
    async def around_enqueue(self, request: EnqueueRequest) -> AsyncIterator[None]:
        request.headers["X-Trace"] = "abc"
        self.requests.append(request)
        yield


async def nothing(job: Job[str]) -> None:
    pass


def nothing_plainly(job: Job[str]) -> None:
    pass


async def perform_one(url: str, defn: JobDef[str], *middleware: Middleware) -> list[events.Event]:
    happened = Seen()
    async with job_processor(url, middleware=middleware, on_event=happened) as p:
        await p.start(defn)
        await p.enqueue(defn, "x")
        await until_empty(p.js, defn.stream)
        p.stop_soon()

    return happened.events


@pytest.mark.parametrize(
    "make",
    [
        lambda stream: JobDef(stream=stream, perform=nothing),
        lambda stream: JobDef(stream=stream, perform=nothing_plainly),
        lambda stream: JobDef(stream=stream, perform=do_nothing, run_in="process"),
    ],
    ids=["async", "thread", "process"],
)
async def test_the_first_is_outermost_wherever_the_handler_runs(
    url: str, name: str, make: Callable[[str], JobDef[str]]
) -> None:
    seen: list[str] = []

    await perform_one(url, make(name), Noting("outer", seen), Noting("inner", seen))

    assert seen == ["outer begins x", "inner begins x", "inner ends", "outer ends"]


async def test_it_sees_what_the_handler_raises_and_each_attempt_by_itself(url: str, name: str) -> None:
    async def fail_once(job: Job[str]) -> None:
        if job.attempt == 1:
            raise LookupError

    seen: list[str] = []
    await perform_one(url, JobDef(stream=name, perform=fail_once, backoff=0.01), Noting("m", seen))

    assert seen == ["m begins x", "m sees LookupError, None", "m begins x", "m ends"]


async def test_a_timeout_is_a_cancellation_in_it_with_its_reason(url: str, name: str) -> None:
    async def wait(job: Job[str]) -> None:
        if job.attempt == 1:
            await anyio.sleep_forever()

    seen: list[str] = []
    await perform_one(url, JobDef(stream=name, perform=wait, timeout=0.2, backoff=0.01), Noting("m", seen))

    assert seen[1] in ("m sees CancelledError, timeout", "m sees Cancelled, timeout")
    assert seen[2:] == ["m begins x", "m ends"]


async def test_what_it_raises_is_what_the_attempt_has_raised(url: str, name: str) -> None:
    class Refusing(Middleware):
        tries = 0

        @asynccontextmanager
        async def around_attempt(self, job: Job[Any]) -> AsyncIterator[None]:
            if job.attempt == 1:
                raise ConnectionError("no database")

            yield

    happened = await perform_one(url, JobDef(stream=name, perform=nothing, backoff=0.01), Refusing())

    errors = [event.error for event in happened if isinstance(event, events.Error)]
    assert [str(error) for error in errors] == ["no database"]


async def test_an_error_that_it_does_not_let_through_does_not_count(url: str, name: str) -> None:
    class Lenient(Middleware):
        @asynccontextmanager
        async def around_attempt(self, job: Job[Any]) -> AsyncIterator[None]:
            try:
                yield
            except LookupError:
                pass

    async def fail(job: Job[str]) -> None:
        raise LookupError

    happened = await perform_one(url, JobDef(stream=name, perform=fail), Lenient())

    assert any(isinstance(event, events.Complete) for event in happened)


async def test_headers_that_it_adds_go_with_every_job_and_it_learns_what_was_stored(
    url: str, name: str
) -> None:
    traces: list[tuple[Any, Any]] = []

    async def note(job: Job[str]) -> None:
        traces.append((job.headers.get("X-Trace"), job.headers.get("X-Own")))

    tracing = Tracing()
    defn = JobDef(stream=name, perform=note)
    async with job_processor(url, middleware=[tracing]) as p:
        await p.start(defn)
        one = await p.enqueue(defn, "a", headers={"X-Own": "1"}, id="a")
        many = await p.enqueue_many(defn, ["b", "c"])
        await until_empty(p.js, name)
        p.stop_soon()

    assert sorted(traces, key=str) == [("abc", "1"), ("abc", None), ("abc", None)]
    first, second = tracing.requests
    assert (first.target, first.payloads, first.ids, first.enqueued) == (defn, ("a",), ("a",), (one,))
    assert (second.payloads, second.ids, second.enqueued) == (["b", "c"], None, many)


async def test_an_enqueue_that_fails_is_raised_through_it_and_cannot_be_kept_back(
    url: str, name: str
) -> None:
    class Lenient(Middleware):
        def __init__(self) -> None:
            self.caught: list[Exception] = []

        @asynccontextmanager
        async def around_enqueue(self, request: EnqueueRequest) -> AsyncIterator[None]:
            try:
                yield
            except PublishRefused as error:
                self.caught.append(error)

    lenient = Lenient()
    async with job_processor(url, middleware=[lenient]) as p:
        await p.start(JobDef(stream=name, perform=nothing))
        with pytest.raises(UsageError, match="kept back"):
            await p.enqueue(name, "x", headers={"Nats-Expected-Stream": "ANOTHER"})
        p.stop_soon()

    assert len(lenient.caught) == 1


async def test_headers_that_cannot_be_are_refused_before_it_sees_them(url: str, name: str) -> None:
    tracing = Tracing()
    async with job_processor(url, middleware=[tracing]) as p:
        with pytest.raises(UsageError, match="headers"):
            await p.enqueue(name, "x", headers=["no"])  # type: ignore[arg-type]

    assert tracing.requests == []


async def test_what_is_not_a_middleware_is_refused_when_the_processor_is_made(url: str) -> None:
    with pytest.raises(UsageError, match="middleware: 7 is not"):
        async with job_processor(url, middleware=[7]):  # type: ignore[list-item]
            raise AssertionError("unreachable")


def test_what_overrides_nothing_costs_nothing() -> None:
    async def handler(job: Job[Any], listener: Any) -> None: ...

    stack = MiddlewareStack([Middleware(), Tracing()])

    assert stack.wrap(handler) is handler
    assert not MiddlewareStack([Middleware(), Noting("m", [])]).sees_enqueues
