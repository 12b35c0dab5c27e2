"""Workers tell each other what they hold, over a real server: who has lost a job and cannot know it learns it from that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st
from nats.js.api import ConsumerConfig

from nats_jobs import CancelReason, Job, JobDef, JobProcessor, job_processor
from nats_jobs.errors import Malformed
from nats_jobs.jobs._claims import parse_claim
from nats_jobs.jobs._engine import Engine
from nats_jobs.wire import Connection, Subscription, connect
from support.jobs import LIMIT, until, until_empty
from support.proxy import fault_proxy

pytestmark = pytest.mark.anyio

# No lease ends by itself in these tests.
LONG = 20 * LIMIT


def first_attempts_last(stream: str, reasons: list[CancelReason | None]) -> JobDef[Any]:
    """Define jobs whose first attempt goes on until it is cut short, and notes why; the second ends at once."""

    async def perform(job: Job[Any]) -> None:
        if job.attempt == 1:
            try:
                await anyio.sleep_forever()
            finally:
                reasons.append(job.reason)

    return JobDef(stream=stream, perform=perform, consumer_config=ConsumerConfig(ack_wait=LONG))


async def hold_one(p: JobProcessor, defn: JobDef[Any]) -> Job[Any]:
    """Start working, and return the job that is being performed."""
    handle = await p.start(defn)
    await p.enqueue(defn, "x")
    await until(lambda: handle.running)
    [job] = handle.running
    return job  # type: ignore[no-any-return]


def engine_of(job: Job[Any]) -> Engine:
    engine = job._control.worker
    assert isinstance(engine, Engine)
    return engine


def claims_of(stream: str, job: Job[Any] | None = None) -> str:
    """Return where the workers of a stream speak; with a job, those of its consumer, and of no other of that name."""
    token = "*" if job is None else engine_of(job).consumer.token
    return f"nats_jobs.claims.{stream}.{stream}Consumer.{token}"


@asynccontextmanager
async def listening(url: str, stream: str) -> AsyncIterator[tuple[Connection, Subscription]]:
    """Hear what the workers tell each other."""
    async with connect(url) as outside, outside.subscribe(claims_of(stream)) as said:
        await outside.flush()
        yield outside, said


async def next_of(said: Subscription) -> bytes:
    with anyio.fail_after(LIMIT):
        return (await said.receive()).data


async def test_who_performs_an_earlier_delivery_is_told_when_the_job_comes_again(url: str, name: str) -> None:
    """A server that forgot the lease has given the job to somebody else, and goes on confirming extensions."""
    reasons = list[CancelReason | None]()
    defn = first_attempts_last(name, reasons)
    async with job_processor(url) as p, job_processor(url) as other:
        job = await hold_one(p, defn)
        await other.start(defn)
        async with connect(url) as outside:
            await outside.publish(job._control.delivery._message.reply, b"-NAK")
            await outside.flush()

        await until(lambda: reasons)
        await until_empty(p.js, name)
        await p.stop()
        await other.stop()

    assert reasons == [CancelReason.LEASE_LOST]


async def test_who_announces_an_earlier_delivery_is_answered_once(url: str, name: str) -> None:
    """What a worker says itself is no news to it, and is not answered: that would never end."""
    reasons = list[CancelReason | None]()
    async with job_processor(url) as p, listening(url, name) as (outside, said):
        job = await hold_one(p, first_attempts_last(name, reasons))
        await outside.publish(claims_of(name, job), b"1 0 ~")
        assert await next_of(said) == b"1 0 ~"
        assert (await next_of(said)).startswith(b"1 1 ")
        # First the worker has heard itself, then the server has what it says to that.
        await p.connection.flush()
        await p.connection.flush()
        await outside.publish(claims_of(name, job), b"2 1 ~")
        assert await next_of(said) == b"2 1 ~"
        assert not reasons
        await p.stop(grace=0)


async def test_after_a_broken_link_a_worker_says_what_it_holds(url: str, name: str) -> None:
    reasons = list[CancelReason | None]()
    async with fault_proxy(url) as proxy, listening(url, name) as (_, said):
        async with job_processor(proxy.url, reconnect_time_wait=0.1) as p:
            await hold_one(p, first_attempts_last(name, reasons))
            proxy.cut()
            assert (await next_of(said)).startswith(b"1 1 ")
            assert not reasons
            await p.stop(grace=0)


GARBAGE = (
    b"9" * 5000 + b" 1 x",
    b"1 " + b"9" * 5000 + b" x",
    b"",
    b"1",
    b"1 1",
    b"1 1 x y",
    b"-1 1 x",
    b"1_0 1 x",
    b"\xff 9 x",
)


async def test_garbage_on_the_subject_of_claims_is_counted_and_said_once(
    url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = list[CancelReason | None]()
    async with job_processor(url) as p, connect(url) as outside:
        job = await hold_one(p, first_attempts_last(name, reasons))
        for data in GARBAGE:
            await outside.publish(claims_of(name, job), data)

        await until(lambda: engine_of(job)._claims.malformed == len(GARBAGE))
        assert not reasons
        await p.stop(grace=0)

    assert len([line for line in caplog.messages if "further ones are only counted" in line]) == 1


@given(st.binary(max_size=200) | st.lists(st.integers().map(lambda n: b"%d" % n), max_size=4).map(b" ".join))
def test_a_claim_is_two_numbers_and_a_name_or_malformed(data: bytes) -> None:
    try:
        sequence, attempt, name = parse_claim(data)
    except Malformed:
        return

    assert data == b"%b %b %b" % (*data.split(b" ")[:2], name)
    assert 0 <= sequence < 10**20
    assert 0 <= attempt < 10**20
