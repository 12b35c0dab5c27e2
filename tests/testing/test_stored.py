"""What a test sees of the jobs that its code has enqueued, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from nats.js.api import StreamConfig

from nats_jobs import Job, JobDef, JobProcessor, Snooze, codecs, job_processor
from nats_jobs.errors import ApiError, DecodeError, UsageError
from nats_jobs.testing import assert_enqueued, drain, enqueued_payloads, set_up_streams

pytestmark = pytest.mark.anyio


@dataclass
class Order:
    number: int


async def nothing(job: Job[Any]) -> None: ...


@pytest.fixture
async def p(url: str, name: str) -> AsyncIterator[JobProcessor]:
    async with job_processor(url) as p:
        yield p
        await p.stop()
        await p.js.delete_stream(name)


async def test_what_is_enqueued_is_seen_in_order_and_as_its_handler_would_get_it(
    p: JobProcessor, name: str
) -> None:
    defn = JobDef(stream=name, perform=nothing)
    await set_up_streams(p, defn)
    await p.enqueue_many(defn, [{"order": (1, 2)}, "two", None])
    assert await enqueued_payloads(p, defn) == [{"order": [1, 2]}, "two", None]
    await assert_enqueued(p, defn, {"order": (1, 2)})
    with pytest.raises(AssertionError, match=r"'three'; stored are: \[.*'two', None\]"):
        await assert_enqueued(p, defn, "three")


async def test_a_delayed_job_is_seen_before_its_time_wherever_it_is_kept(p: JobProcessor, name: str) -> None:
    defn = JobDef(stream=name, perform=nothing)
    await set_up_streams(p, defn)
    await p.enqueue(defn, "later", delay=3600)
    await p.enqueue(defn, "now")
    assert sorted(await enqueued_payloads(p, defn)) == ["later", "now"]
    await assert_enqueued(p, defn, "later")


async def test_typed_payloads_are_compared_as_what_they_are(p: JobProcessor, name: str) -> None:
    pytest.importorskip("pydantic")
    defn: JobDef[Order] = JobDef(stream=name, perform=nothing, codec=codecs.typed(Order))
    await set_up_streams(p, defn)
    await p.enqueue(defn, Order(7))
    await assert_enqueued(p, defn, Order(7))
    await p.enqueue(name, {"number": "seven"})
    with pytest.raises(DecodeError):
        await enqueued_payloads(p, defn)


async def test_jobs_of_another_subject_are_not_those_of_the_definition(p: JobProcessor, name: str) -> None:
    await p.js.add_stream(StreamConfig(name=name, subjects=[f"{name}.*"]))
    defn = JobDef(stream=name, perform=nothing, filter_subject=f"{name}.mine")
    await p.enqueue(f"{name}.theirs", 1)
    await p.enqueue(defn, 2)
    assert await enqueued_payloads(p, defn) == [2]
    assert await enqueued_payloads(p, defn, subject=f"{name}.theirs") == [1]


async def test_a_stream_that_does_not_exist_is_an_error(p: JobProcessor, name: str) -> None:
    defn = JobDef(stream=name, perform=nothing)
    with pytest.raises(ApiError, match="stream not found"):
        await enqueued_payloads(p, defn)
    await set_up_streams(p, defn)


async def test_draining_waits_for_jobs_of_jobs_and_for_other_attempts(p: JobProcessor, name: str) -> None:
    done: list[int] = []

    async def count_down(job: Job[int]) -> None:
        if job.attempt == 1:
            raise ConnectionError
        await anyio.sleep(0.02)
        done.append(job.payload)
        if job.payload:
            await p.enqueue(defn, job.payload - 1)

    defn = JobDef(stream=name, perform=count_down, backoff=0)
    await p.start(defn)
    await drain(p)
    await p.enqueue(defn, 3)
    await drain(p)
    assert done == [3, 2, 1, 0]


async def test_draining_in_vain_says_what_is_left(p: JobProcessor, name: str) -> None:
    async def never(job: Job[int]) -> None:
        raise Snooze(3600)

    defn = JobDef(stream=name, perform=never)
    with pytest.raises(UsageError, match="no worker"):
        await drain(p)
    await p.start(defn)
    await p.enqueue(defn, 1)
    with pytest.raises(TimeoutError, match=f"after 0.2 s: 0 waiting and 1 in hand .*{name}"):
        await drain(p, timeout=0.2)
