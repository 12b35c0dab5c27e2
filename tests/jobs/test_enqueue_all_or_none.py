"""Enqueueing with `atomic=True`: all of them are stored, or none, whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from nats.js.api import StreamConfig

from nats_jobs import Enqueued, Job, JobDef, JobProcessor, delays, job_processor
from nats_jobs.errors import NoBatches, NotConfirmed, PayloadTooLarge, PublishRefused, UsageError
from nats_jobs.jetstream import MAX_BATCH, ErrorCode
from nats_jobs.server import run_server
from support.jobs import LIMIT, in_stream, until
from support.proxy import DOWN, fault_proxy

pytestmark = pytest.mark.anyio


async def perform(job: Job[Any]) -> None: ...


def defined(stream: str, **config: Any) -> JobDef[Any]:
    config.setdefault("allow_atomic", True)
    return JobDef(stream=stream, perform=perform, stream_config=StreamConfig(**config))


@asynccontextmanager
async def producer(url: str, defn: JobDef[Any], **options: Any) -> AsyncIterator[JobProcessor]:
    """A processor whose worker for `defn` has set up the stream, and is stopped again."""
    async with job_processor(url, **options) as p:
        if await p.api.level() < delays.MIN_API_LEVEL:
            pytest.skip("nats-server 2.12 and newer")

        await (await p.start(defn)).stop()
        yield p


@pytest.mark.smoke
async def test_all_are_stored_one_behind_the_other_and_confirmed_in_their_order(url: str, name: str) -> None:
    defn = defined(name)
    async with producer(url, defn) as p:
        await p.enqueue(defn, "before")
        stored = await p.enqueue_many(defn, range(MAX_BATCH), atomic=True)
        last = await p.js.get_msg(name, stored[-1].sequence)

        assert stored == [Enqueued(name, 2 + index, False) for index in range(MAX_BATCH)]
        assert defn.encoder.decode(last.data or b"") == MAX_BATCH - 1
        assert await in_stream(p.js, name) == 1 + MAX_BATCH


async def test_when_one_is_known_already_none_is_stored(url: str, name: str) -> None:
    defn = defined(name)
    async with producer(url, defn) as p:
        await p.enqueue(defn, 1, id="one")
        with pytest.raises(PublishRefused) as caught:
            await p.enqueue_many(defn, [2, 1, 3], ids=["two", "one", "three"], atomic=True)

        assert caught.value.err_code == ErrorCode.BATCH_HAS_DUPLICATE_ID
        assert await in_stream(p.js, name) == 1
        # What was refused leaves nothing behind that would stand in the way.
        assert len(await p.enqueue_many(defn, [2, 3], ids=["two", "three"], atomic=True)) == 2


async def test_when_one_is_too_large_none_is_stored(url: str, name: str) -> None:
    defn = defined(name)
    async with producer(url, defn) as p:
        with pytest.raises(PayloadTooLarge):
            await p.enqueue_many(defn, ["small", "x" * 2_000_000, "small"], atomic=True)

        await p.enqueue(defn, "after")
        assert await in_stream(p.js, name) == 1


async def test_when_the_stream_is_full_none_is_stored(url: str, name: str) -> None:
    defn = defined(name, max_msgs=2, discard="new")
    async with producer(url, defn) as p:
        with pytest.raises(PublishRefused):
            await p.enqueue_many(defn, [1, 2, 3], atomic=True)

        assert await in_stream(p.js, name) == 0


async def test_none_at_all_is_fine(url: str, name: str) -> None:
    defn = defined(name)
    async with producer(url, defn) as p:
        assert await p.enqueue_many(defn, [], atomic=True) == []


@pytest.mark.parametrize(
    ("payloads", "ids", "said"),
    [(range(MAX_BATCH + 1), None, f"{MAX_BATCH + 1} jobs"), ([1, 2], ["a", "a"], "twice")],
)
async def test_what_no_batch_can_hold_is_refused_at_once(
    url: str, name: str, payloads: Any, ids: list[str] | None, said: str
) -> None:
    defn = defined(name)
    async with producer(url, defn) as p:
        with pytest.raises(UsageError, match=said):
            await p.enqueue_many(defn, payloads, ids=ids, atomic=True)

        assert await in_stream(p.js, name) == 0


@pytest.mark.smoke
async def test_a_stream_without_batches_is_sent_nothing(url: str, name: str) -> None:
    """It would store each message by itself."""
    async with job_processor(url) as p:
        await p.js.add_stream(StreamConfig(name=name))
        with pytest.raises(NoBatches, match=f"{name}.*allow_atomic=True"):
            await p.enqueue_many(name, [1, 2], atomic=True)

        assert await in_stream(p.js, name) == 0


async def test_delayed_jobs_are_kept_all_or_none(url: str, name: str) -> None:
    defn = defined(name, allow_msg_schedules=True)
    async with producer(url, defn) as p:
        at = datetime.now(UTC) + timedelta(hours=1)
        first, second = await p.enqueue_many(defn, ["a", "b"], ids=["a", "b"], at=at, atomic=True)
        with pytest.raises(PublishRefused):
            await p.enqueue_many(defn, ["c", "b"], ids=["c", "b"], at=at, atomic=True)

        assert [job.id for job in await p.scheduled(defn)] == ["a", "b"]
        assert await first.cancel()
        assert [job.sequence for job in await p.scheduled(defn)] == [second.sequence]


async def test_an_answer_that_is_lost_is_asked_for_again_and_tells_where_they_are(
    url: str, name: str
) -> None:
    defn = defined(name)
    async with (
        fault_proxy(url) as proxy,
        producer(url, defn) as outside,
        producer(proxy.url, defn, enqueue_timeout=LIMIT, reconnect_time_wait=0.1) as p,
        anyio.create_task_group() as group,
    ):
        # Known to the producer, so that nothing is asked but what is tried here.
        await p.enqueue_many(defn, ["first"], atomic=True)
        answers: list[Enqueued] = []

        async def enqueue() -> None:
            answers.extend(await p.enqueue_many(defn, range(10), atomic=True))

        proxy.swallow(DOWN)
        group.start_soon(enqueue)

        async def arrived() -> bool:
            return await in_stream(outside.js, name) == 11

        await until(arrived)
        proxy.restore()
        proxy.cut()
        await until(lambda: answers)

        assert [(answer.stream, answer.sequence) for answer in answers] == [(name, 2 + i) for i in range(10)]
        assert await in_stream(outside.js, name) == 11


async def test_batches_that_links_cut_off_are_stored_whole_and_once() -> None:
    """Whole links are lost at random bytes while twenty batches are sent."""
    async with run_server() as server, fault_proxy(server.url) as proxy:
        defn = defined("CUT")
        async with producer(proxy.url, defn, enqueue_timeout=LIMIT, reconnect_time_wait=0.01) as p:
            await p.enqueue_many(defn, ["first"], atomic=True)
            for batch in range(20):
                proxy.cut_after(97 * batch)
                stored = await p.enqueue_many(defn, [batch] * 10, atomic=True)
                assert [ack.sequence for ack in stored] == list(range(2 + 10 * batch, 12 + 10 * batch))

            proxy.restore()
            assert await in_stream(p.js, "CUT") == 1 + 20 * 10


async def test_without_a_server_it_says_that_it_is_not_confirmed() -> None:
    async with run_server() as server:
        defn = defined("GONE")
        async with producer(server.url, defn, enqueue_timeout=0.3) as p:
            await p.enqueue_many(defn, [1], atomic=True)
            server.kill()
            await server.wait_exited()
            with pytest.raises(NotConfirmed), anyio.fail_after(LIMIT):
                await p.enqueue_many(defn, [2, 3], atomic=True)
