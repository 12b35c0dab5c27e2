"""Delayed jobs: kept by the server where it has schedules, listed, cancelled and given another time, and truly said when too late."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import anyio
import pytest
from nats.js.api import ConsumerConfig, StreamConfig

from nats_jobs import Enqueued, Job, JobDef, JobProcessor, Reject, delays, job_processor
from nats_jobs.errors import DelayUncertain, NoSchedules, UsageError
from nats_jobs.events import DeadLettered
from support.jobs import Seen, in_stream, until

pytestmark = pytest.mark.anyio

WITH = StreamConfig(allow_msg_schedules=True)


class Performed:
    """A definition that keeps what it performed."""

    def __init__(self, name: str, **fields: Any) -> None:
        self.jobs: list[tuple[Any, str | None, int, datetime]] = []
        options: dict[str, Any] = {"stream": name, "perform": self.perform, "stream_config": WITH} | fields
        self.defn: JobDef[Any] = JobDef(**options)

    async def perform(self, job: Job[Any]) -> None:
        self.jobs.append((job.payload, job.id, job.attempt, datetime.now(UTC)))
        if job.payload == "hopeless":
            raise Reject("no")

    @property
    def payloads(self) -> list[Any]:
        return [payload for payload, *_ in self.jobs]


@asynccontextmanager
async def working(url: str, performed: Performed, **options: Any) -> AsyncIterator[JobProcessor]:
    async with job_processor(url, **options) as p:
        if await p.api.level() < delays.MIN_API_LEVEL:
            pytest.skip("nats-server 2.12 and newer")

        await p.start(performed.defn)
        yield p
        await p.stop()


async def ack_pending(p: JobProcessor, name: str) -> int:
    info = await p.js.consumer_info(name, f"{name}Consumer")
    return int(info.num_ack_pending or 0)


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


# Kept by the server...


@pytest.mark.smoke
async def test_a_delayed_job_costs_no_delivery_and_keeps_its_id_and_headers(url: str, name: str) -> None:
    performed = Performed(name)
    async with working(url, performed) as p:
        due = soon(0.8)
        one = await p.enqueue(performed.defn, "one", id="order-7", at=due)
        many = await p.enqueue_many(performed.defn, ["two", "three"], ids=["a", "b"], at=due)
        assert isinstance(one, Enqueued)
        assert [entry.duplicate for entry in (one, *many)] == [False, False, False]
        assert await ack_pending(p, name) == 0
        await until(lambda: len(performed.jobs) == 3)

    assert {(payload, id, attempt) for payload, id, attempt, _ in performed.jobs} == {
        ("one", "order-7", 1),
        ("two", "a", 1),
        ("three", "b", 1),
    }
    assert all(at >= due for *_, at in performed.jobs)


async def test_it_outlives_the_max_age_of_its_stream(url: str, name: str) -> None:
    performed = Performed(name, stream_config=WITH.evolve(max_age=1, duplicate_window=1))
    async with working(url, performed) as p:
        await p.enqueue(performed.defn, 1, delay=2.5)
        await until(lambda: performed.jobs)


async def test_without_schedules_a_job_that_would_be_gone_before_its_time_is_refused(
    url: str, name: str
) -> None:
    defn = Performed(name, stream_config=StreamConfig(max_age=60, duplicate_window=60)).defn
    async with job_processor(url) as p:
        await (await p.start(defn)).stop()
        with pytest.raises(UsageError, match="gone before its time"):
            await p.enqueue(defn, 1, delay=61)


@pytest.mark.smoke
async def test_an_id_that_waits_is_a_duplicate_also_after_the_duplicate_window(url: str, name: str) -> None:
    performed = Performed(name, stream_config=WITH.evolve(duplicate_window=0.2))
    async with working(url, performed) as p:
        first = await p.enqueue(performed.defn, 1, id="x", delay=3600)
        await anyio.sleep(0.5)
        second = await p.enqueue(performed.defn, 2, id="x", delay=1800)
        [third, other] = await p.enqueue_many(performed.defn, [3, 4], ids=["x", "y"], delay=1800)
        assert (
            (second.sequence, second.duplicate) == (third.sequence, third.duplicate) == (first.sequence, True)
        )
        assert not other.duplicate
        [job, _] = await p.scheduled(performed.defn)
        assert (job.payload(), job.id, job.sequence) == (1, "x", first.sequence)
        # By the confirmation of the second, too.
        assert await second.cancel()
        assert not await first.reschedule(soon(3600))
        assert [job.id for job in await p.scheduled(performed.defn)] == ["y"]


async def test_a_subject_is_as_good_as_a_definition(url: str, name: str) -> None:
    performed = Performed(name, stream_config=WITH.evolve(subjects=[f"{name}.*"]))
    async with working(url, performed) as p:
        await p.enqueue(f"{name}.a", 1, delay=0.5)
        [job] = await p.scheduled(name)
        assert (job.subject, job.schedule is not None) == (f"{name}.a", True)
        await until(lambda: performed.jobs)


async def test_a_dead_letter_of_a_delayed_job_has_its_id_and_is_redriven_at_once(url: str, name: str) -> None:
    performed = Performed(name)
    seen = Seen()
    async with working(url, performed, on_event=seen) as p:
        await p.enqueue(performed.defn, "hopeless", id="order-8", delay=0.3)
        [event] = await seen.wait_for(DeadLettered)
        [letter] = [letter async for letter in p.dead_letters.browse(stream=name)]
        assert (event.id, letter.id) == ("order-8", "order-8")
        assert not [header for header in letter.headers if header.lower().startswith("nats-sched")]
        await p.dead_letters.redrive(letter.sequence)
        await seen.wait_for(DeadLettered, 2)
        await p.dead_letters.purge(stream=name)


async def test_with_a_consumer_that_would_be_handed_schedules_the_workers_keep_the_job(
    url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    performed = Performed(name, stream_config=WITH.evolve(retention="limits"))
    async with working(url, performed) as p:
        await p.js.add_consumer(name, ConsumerConfig(durable_name="theirs"))
        await p.enqueue(performed.defn, 1, delay=0.5)
        await until(lambda: performed.jobs)

    assert "theirs" in caplog.text
    assert performed.jobs[0][2] == 2


async def test_a_schedule_that_a_worker_is_handed_is_no_job(url: str, name: str) -> None:
    """Its consumer has lost its filter after the producer had looked."""
    performed = Performed(name)
    async with working(url, performed) as p:
        await p.enqueue(performed.defn, "warm", delay=0.1)
        config = (await p.api.consumer(name, f"{name}Consumer")).config
        await p.api.update_consumer(name, config | {"filter_subject": ""})
        due = soon(1)
        await p.enqueue(performed.defn, 1, at=due)
        await until(lambda: len(performed.jobs) == 2)

    assert performed.payloads == ["warm", 1]
    assert performed.jobs[1][3] >= due


@pytest.mark.smoke
async def test_a_server_without_schedules_is_never_given_one(url: str, name: str) -> None:
    """It would store it as an ordinary message, and somebody perform it at once."""
    performed = Performed(name)
    async with job_processor(url) as p:
        if await p.api.level() >= delays.MIN_API_LEVEL:
            pytest.skip("nats-server 2.11 and older")

        # The flag is dropped without a word, the subjects are not.
        subjects = [name, delays.schedules_of(name)]
        await p.js.add_stream(WITH.evolve(name=name, subjects=subjects))
        handle = await p.start(performed.defn)
        due = soon(0.5)
        await p.enqueue(performed.defn, 1, at=due)
        stored = await p.js.get_last_msg(name, ">")
        assert stored.subject == name
        assert "Nats-Schedule" not in (stored.headers or {})
        await until(lambda: performed.jobs)
        await handle.stop()

    assert performed.jobs[0][3] >= due


@pytest.mark.smoke
async def test_without_a_target_the_jobs_of_all_streams_with_schedules_and_of_workers_are_listed(
    url: str, name: str
) -> None:
    names = f"{name}_a", f"{name}_b"
    for stream, config in zip(names, (WITH, None), strict=True):
        defn = Performed(stream, stream_config=config).defn
        async with job_processor(url) as p:
            handle = await p.start(defn)
            await p.enqueue_many(defn, [1, 2], delay=3600)
            found = [job.payload() for job in await p.scheduled() if job.stream == stream]
            assert found == [1, 2]
            assert len(await p.scheduled(limit=1)) == 1
            with pytest.raises(UsageError, match="of which"):
                await p.scheduled(after=1)

            await handle.stop()
            await p.js.delete_stream(stream)


# Cancelled, and given another time...


@pytest.mark.smoke
async def test_it_is_cancelled_and_given_another_time(url: str, name: str) -> None:
    performed = Performed(name)
    async with working(url, performed) as p:
        kept, gone, moved = await p.enqueue_many(performed.defn, ["kept", "gone", "moved"], delay=3600)
        due = soon(0.7)
        assert await gone.cancel()
        assert await moved.reschedule(due)
        await until(lambda: performed.jobs)
        assert [job.sequence for job in await p.scheduled(performed.defn)] == [kept.sequence]
        assert not await moved.cancel()
        assert not await moved.reschedule(soon(5))
        [job] = await p.scheduled(performed.defn)
        assert await job.reschedule(soon(7200))
        # What was read before that is not as it was.
        assert not await job.cancel()
        assert not await kept.cancel()

    assert performed.payloads == ["moved"]
    assert performed.jobs[0][3] >= due


async def test_what_was_not_delayed_cannot_be_cancelled(url: str, name: str) -> None:
    performed = Performed(name)
    async with working(url, performed) as p:
        enqueued = await p.enqueue(performed.defn, 1)
        with pytest.raises(UsageError, match="without a delay"):
            await enqueued.cancel()

        with pytest.raises(UsageError, match="without a delay"):
            await enqueued.reschedule(soon(1))


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.smoke
async def test_around_its_time_a_job_is_cancelled_or_performed_as_was_said(
    url: str, name: str, count: int
) -> None:
    performed = Performed(name, concurrency=20)
    said: dict[int, bool] = {}
    chance = Random(count)
    async with working(url, performed) as p:
        # Many at one moment: the server takes some time for those.
        start = soon(2)
        times = [
            start + timedelta(milliseconds=chance.choice((0, 0, chance.uniform(0, 1000))))
            for _ in range(count)
        ]
        jobs = [await p.enqueue(performed.defn, number, at=at) for number, at in enumerate(times)]

        async def cancel(number: int) -> None:
            await anyio.sleep((times[number] - datetime.now(UTC)).total_seconds() + chance.uniform(-0.8, 0.1))
            try:
                said[number] = await jobs[number].cancel()
            except DelayUncertain:
                # The machine stood still for half a second: it may be performed, or not.
                pass

        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(cancel, number)

        kept = {number for number in said if not said[number]}
        await until(lambda: kept <= set(performed.payloads))
        await until(lambda: _is_empty(p, name))

    cancelled = {number for number in said if said[number]}
    assert not cancelled & set(performed.payloads)
    assert len(performed.payloads) == len(set(performed.payloads))


async def _is_empty(p: JobProcessor, name: str) -> bool:
    return await in_stream(p.js, name) == 0


# Kept by the workers...


@pytest.mark.smoke
async def test_a_job_that_waits_with_its_workers_is_listed_and_cancelled_but_not_rescheduled(
    url: str, name: str
) -> None:
    performed = Performed(name, stream_config=None)
    async with job_processor(url) as p:
        handle = await p.start(performed.defn)
        far, near, gone = [
            await p.enqueue(performed.defn, delay, id=str(delay), delay=delay) for delay in (3600, 30, 7200)
        ]
        await p.enqueue(performed.defn, 0)
        await until(lambda: performed.jobs)
        jobs = await p.scheduled(performed.defn)
        assert [(job.id, job.payload(), job.schedule) for job in jobs] == [
            ("3600", 3600, None),
            ("30", 30, None),
            ("7200", 7200, None),
        ]
        with pytest.raises(NoSchedules, match=r"the server is \d+\.\d+.*2\.12 is needed"):
            await far.reschedule(soon(5))

        assert await gone.cancel()
        assert not await gone.cancel()
        assert not await near.cancel(), "the clock of a worker may be a minute ahead"
        assert [job.id for job in await p.scheduled(performed.defn, limit=2)] == ["3600", "30"]
        assert [job.id for job in await p.scheduled(performed.defn, after=far.sequence)] == ["30"]
        await handle.stop()

    assert Counter(performed.payloads) == {0: 1}


@pytest.mark.parametrize("wrong", [{"after": -1}, {"limit": 0}])
async def test_a_list_is_bounded(url: str, name: str, wrong: dict[str, Any]) -> None:
    async with job_processor(url) as p:
        with pytest.raises(UsageError, match="or more"):
            await p.scheduled(name, **wrong)
