"""What the user's own functions raise is the job's matter, or is logged; it never ends the processor."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nats_jobs import Job, JobDef, job_processor
from nats_jobs.errors import Reject
from nats_jobs.events import DeadLettered, Event
from nats_jobs.wire import connect
from support.jobs import Seen, until_empty

pytestmark = pytest.mark.anyio


class Bang(BaseException):
    """Neither an Exception nor a cancellation."""


RAISED: list[type[BaseException]] = [KeyError, RecursionError, Bang, SystemExit]


class Orders:
    """A codec that raises `error` for what it does not know."""

    name = "orders"
    content_type = "application/vnd.example.orders"

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def encode(self, value: object) -> bytes:
        return json.dumps({"order": value}).encode()

    def decode(self, data: bytes) -> object:
        read: dict[str, object] = json.loads(data)
        if "order" not in read:
            raise self._error("order")

        return read["order"]


@pytest.mark.parametrize("error", RAISED)
async def test_what_a_codec_raises_makes_the_message_a_dead_letter_and_the_next_is_performed(
    url: str, name: str, error: type[BaseException]
) -> None:
    seen = Seen()
    called: list[object] = []

    async def perform(job: Job[object]) -> None:
        called.append(job.payload)

    defn: JobDef[Any] = JobDef(stream=name, perform=perform, codec=Orders(error))
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        async with connect(url) as outside:
            await outside.publish(name, b'{"something": "else"}')

        await p.enqueue(defn, 7)
        await until_empty(p.js, name)
        assert await p.dead_letters.count(stream=name) == 1
        await p.stop()

    assert called == [7]
    assert [event.reason for event in seen.of(DeadLettered)] == ["undecodable"]
    assert error.__name__ in seen.of(DeadLettered)[0].error


@pytest.mark.parametrize("error", RAISED)
async def test_what_on_event_raises_is_logged(
    url: str, name: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[object] = []

    async def perform(job: Job[object]) -> None:
        called.append(job.payload)

    def on_event(event: Event) -> None:
        raise error(type(event).__name__)

    defn: JobDef[Any] = JobDef(stream=name, perform=perform)
    async with job_processor(url, on_event=on_event) as p:
        await p.start(defn)
        await p.enqueue_many(defn, [1, 2])
        await until_empty(p.js, name)
        await p.stop()

    assert sorted(called, key=str) == [1, 2]
    assert "on_event failed for Complete" in caplog.text


@pytest.mark.parametrize("error", RAISED)
async def test_what_the_text_of_an_error_and_the_backoff_raise_costs_no_more_than_the_attempt(
    url: str, name: str, error: type[BaseException]
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise error("no text")

        __repr__ = __str__

    def backoff(attempt: int) -> float:
        raise error("no delay")

    attempts: list[int] = []

    async def perform(job: Job[object]) -> None:
        attempts.append(job.attempt)
        raise Mute if job.attempt == 1 else Reject("no")

    seen = Seen()
    defn: JobDef[Any] = JobDef(stream=name, perform=perform, num_attempts=3, backoff=backoff)
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1, 2]
    assert [event.reason for event in seen.of(DeadLettered)] == ["rejected"]


async def test_what_is_not_an_exception_ends_the_processor_and_the_log_says_which_job_it_was(
    url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def perform(job: Job[object]) -> None:
        raise Bang

    defn: JobDef[Any] = JobDef(stream=name, perform=perform)
    with pytest.raises(Bang):
        async with job_processor(url) as p:
            await p.start(defn)
            await p.enqueue(defn, None)

    assert f"Job({name}/1" in caplog.text
    assert "ends the processor" in caplog.text
