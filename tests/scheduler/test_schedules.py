"""Schedules on a real server, from the declaration to the job that a worker is given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import anyio
import pytest
from nats.js.api import ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig

from nats_jobs import JobProcessor, job_processor
from nats_jobs.errors import ScheduleError, StreamDeleted, UsageError
from nats_jobs.events import TickEnqueued, TickRefused
from nats_jobs.scheduler import Every
from nats_jobs.scheduler._batch_ledger import record_prefix
from support.jobs import LIMIT, Seen, until
from support.schedules import INTERVAL, ScheduledWorker as Worker, until_jobs_are_done

pytestmark = pytest.mark.anyio


@pytest.fixture
def worker(name: str) -> Worker:
    return Worker(name)


@pytest.fixture
async def p(url: str) -> AsyncIterator[JobProcessor]:
    async with job_processor(url) as p:
        yield p
        await p.stop()


async def test_a_job_knows_its_schedule_and_its_tick(p: JobProcessor, worker: Worker, name: str) -> None:
    handle = await p.start_schedule(worker.schedule(payload={"n": 1}))
    first = handle.next_tick
    await p.start(worker.defn)
    await until(lambda: len(worker.jobs) >= 3)
    await handle.stop()
    job = worker.jobs[0]
    assert (job.schedule_id, job.scheduled_for, job.payload) == (name, first, {"n": 1})
    assert handle.next_tick is None
    worker.assert_each_once()
    # Never before its time, by the server's clock.
    assert all(job.scheduled_for and job.enqueued_at >= job.scheduled_for for job in worker.jobs)


async def test_a_job_that_was_enqueued_by_hand_has_no_schedule(
    p: JobProcessor, worker: Worker, name: str
) -> None:
    await p.start(worker.defn)
    await p.enqueue(worker.defn, None, headers={"Nats-Jobs-Scheduled-For": "some day"})
    await p.enqueue(worker.defn, None)
    await until(lambda: len(worker.jobs) == 2)
    assert [(job.schedule_id, job.scheduled_for) for job in worker.jobs] == [(None, None)] * 2


async def test_several_processors_enqueue_each_tick_once_and_tell_each_once(
    p: JobProcessor, url: str, worker: Worker
) -> None:
    seen = [Seen(), Seen(), Seen()]
    await p.start(worker.defn)
    async with (
        job_processor(url, on_event=seen[0]) as a,
        job_processor(url, on_event=seen[1]) as b,
        job_processor(url, on_event=seen[2]) as c,
    ):
        for processor in (a, b, c):
            processor.schedule(worker.schedule(catch_up="all"))

        await until(lambda: len(worker.jobs) >= 8)
        for processor in (a, b, c):
            await processor.stop()

    await until_jobs_are_done(p, worker)
    worker.assert_each_once()
    told = [event.tick for each in seen for event in each.of(TickEnqueued)]
    assert sorted(told) == worker.ticks


async def test_declared_again_and_again_from_many_places_it_loses_and_doubles_no_tick(
    p: JobProcessor, url: str, worker: Worker
) -> None:
    await p.start(worker.defn)
    schedule = worker.schedule(catch_up="all")

    async def declare_again_and_again() -> None:
        for _ in range(10):
            handle = await q.start_schedule(schedule)
            await anyio.sleep(INTERVAL / 3)
            await handle.stop()

    async with job_processor(url) as q, job_processor(url) as r:
        await r.start_schedule(schedule)
        async with anyio.create_task_group() as group:
            group.start_soon(declare_again_and_again)

        await r.stop()
        await q.stop()

    await until_jobs_are_done(p, worker)
    worker.assert_each_once()


async def test_what_was_missed_while_nobody_was_there_is_caught_up(p: JobProcessor, worker: Worker) -> None:
    await p.start(worker.defn)
    schedule = worker.schedule(catch_up="all")
    await (await p.start_schedule(schedule)).stop()
    await anyio.sleep(5 * INTERVAL)
    before = len(worker.jobs)
    handle = await p.start_schedule(schedule)
    await until(lambda: len(worker.jobs) >= before + 7)
    await handle.stop()
    await until_jobs_are_done(p, worker)
    worker.assert_each_once()


async def test_workers_that_start_before_and_after_a_schedule_are_given_jobs_and_no_records(
    p: JobProcessor, url: str, worker: Worker, name: str
) -> None:
    handle = await p.start(worker.defn)
    await p.start_schedule(worker.schedule())
    await until(lambda: len(worker.jobs) >= 1)
    await handle.stop()
    await p.js.delete_consumer(name, worker.defn.consumer)
    await p.start(worker.defn)
    await until(lambda: len(worker.jobs) >= 4)
    assert all(job.subject == name and job.schedule_id == name for job in worker.jobs)


async def test_a_worker_and_a_schedule_that_start_at_the_same_time_find_each_other(
    p: JobProcessor, name: str
) -> None:
    workers = [Worker(f"{name}_{number}") for number in range(8)]
    for worker in workers:
        p.start_soon(worker.defn)
        p.schedule(worker.schedule())

    for worker in workers:
        await until(lambda worker=worker: len(worker.jobs) >= 2)  # type: ignore[misc]
        assert all(job.schedule_id for job in worker.jobs)


async def test_a_consumer_of_somebody_else_is_left_alone_and_the_records_are_kept_elsewhere(
    p: JobProcessor, worker: Worker, name: str
) -> None:
    await p.js.add_stream(StreamConfig(name=name, subjects=[name], retention=RetentionPolicy.WORK_QUEUE))
    config = ConsumerConfig(durable_name=f"{name}Consumer", max_deliver=5)
    await p.js.add_consumer(name, config)
    before = await p.api.stream(name), await p.api.consumer(name, f"{name}Consumer")
    schedule = worker.schedule()
    handle = await p.start_schedule(schedule)
    after = await p.api.stream(name), await p.api.consumer(name, f"{name}Consumer")
    assert [info.config for info in before] == [info.config for info in after]
    await p.start(worker.defn)
    await until(lambda: len(worker.jobs) >= 4)
    await handle.stop()
    worker.assert_each_once()


async def test_a_stream_that_cannot_hold_records_has_them_elsewhere(p: JobProcessor, name: str) -> None:
    worker = Worker(name, stream_config=StreamConfig(discard=DiscardPolicy.NEW))
    await p.start(worker.defn)
    await p.start_schedule(worker.schedule())
    await until(lambda: len(worker.jobs) >= 3)
    assert (await p.api.stream(name)).config["subjects"] == [name]


async def test_the_target_may_be_a_subject(p: JobProcessor, worker: Worker, name: str) -> None:
    await p.start(worker.defn)
    await p.start_schedule(worker.schedule(target=name, payload=[1]))
    await until(lambda: len(worker.jobs) >= 2)
    assert worker.jobs[0].payload == [1]


async def test_a_purge_of_the_whole_stream_is_survived(p: JobProcessor, worker: Worker, name: str) -> None:
    await p.start(worker.defn)
    await p.start_schedule(worker.schedule(catch_up="all"))
    await until(lambda: len(worker.jobs) >= 2)
    await p.api.purge(name)
    await until(lambda: len(worker.jobs) >= 6)
    worker.assert_each_once()


# What goes wrong...


async def test_errors_of_the_declaration_raise_where_it_was_awaited(
    p: JobProcessor, worker: Worker, name: str
) -> None:
    with pytest.raises(ScheduleError, match="no stream takes the subject") as caught:
        await p.start_schedule(worker.schedule(target=f"{name}.nowhere"))

    assert (caught.value.field, caught.value.schedule) == ("target", name)
    await p.js.add_stream(StreamConfig(name=name, subjects=[name]))
    with pytest.raises(ScheduleError, match="a work queue is needed"):
        await p.start_schedule(worker.schedule(target=name, overlap="skip"))

    with pytest.raises(UsageError, match="not a Schedule"):
        await p.start_schedule("nightly")  # type: ignore[arg-type]

    await p.start_schedule(worker.schedule(target=name))
    with pytest.raises(ScheduleError, match="of that id already"):
        p.schedule(worker.schedule(target=name))


async def test_errors_of_a_declaration_that_nobody_awaited_raise_out_of_the_block(
    url: str, worker: Worker
) -> None:
    with anyio.fail_after(LIMIT), pytest.raises(ScheduleError, match="no stream takes"):
        async with job_processor(url) as p:
            p.schedule(worker.schedule(target=f"{worker.defn.stream}.nowhere"))


async def test_a_stream_that_is_deleted_ends_the_processor(url: str, worker: Worker, name: str) -> None:
    with anyio.fail_after(LIMIT), pytest.raises(StreamDeleted, match=name):
        async with job_processor(url) as p:
            await p.start_schedule(worker.schedule())
            await p.js.delete_stream(name)


def broken(tick: datetime) -> None:
    raise RuntimeError("no payload today")


async def test_a_payload_that_cannot_be_made_is_told_and_tried_again(
    url: str, worker: Worker, name: str
) -> None:
    seen = Seen()
    async with job_processor(url, on_event=seen) as p:
        await p.start_schedule(worker.schedule(payload=broken))
        await until(lambda: len(seen.of(TickRefused)) >= 2)
        assert "no payload today" in str(seen.of(TickRefused)[0].error)
        assert not seen.of(TickEnqueued)
        await p.stop()


async def test_a_processor_that_was_stopped_takes_no_schedule_and_the_stop_is_quick(
    url: str, worker: Worker
) -> None:
    async with job_processor(url) as p:
        handle = await p.start_schedule(worker.schedule(rule=Every(3600)))
        with anyio.fail_after(LIMIT):
            await p.stop()
            await handle.wait_stopped()

        with pytest.raises(UsageError, match="told to stop"):
            p.schedule(worker.schedule(id="other"))


async def test_a_record_that_somebody_has_broken_is_told_and_not_followed(
    url: str, worker: Worker, name: str
) -> None:
    seen = Seen()
    async with job_processor(url, on_event=seen) as p:
        await p.start_schedule(worker.schedule())
        headers = {"Nats-Rollup": "sub"}
        await p.js.publish(f"{record_prefix(name)}.{name}", b"{}", headers=headers)
        await until(lambda: seen.of(TickRefused))
        await p.stop()
