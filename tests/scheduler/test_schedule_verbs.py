"""What can be done with schedules that others follow, on both ledgers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import anyio
import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from nats_jobs import JobProcessor, job_processor
from nats_jobs.errors import ScheduleError
from nats_jobs.events import TickSkipped
from nats_jobs.scheduler import Every
from support.jobs import LIMIT, Seen, until
from support.schedules import INTERVAL, ScheduledWorker

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["beside the jobs", "in the bucket"])
def worker(request: pytest.FixtureRequest, name: str) -> ScheduledWorker:
    config = None if request.param == "beside the jobs" else StreamConfig(discard=DiscardPolicy.NEW)
    return ScheduledWorker(name, stream_config=config)


@pytest.fixture
async def follower(url: str, worker: ScheduledWorker) -> AsyncIterator[JobProcessor]:
    """A processor that performs the jobs of the stream, and may follow its schedules."""
    async with job_processor(url) as p:
        await p.start(worker.defn)
        yield p
        await p.stop()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def p(url: str, seen: Seen) -> AsyncIterator[JobProcessor]:
    """A processor that follows nothing, as that of a command line."""
    async with job_processor(url, on_event=seen) as p:
        yield p


async def test_a_schedule_is_listed_with_what_it_says_and_how_far_it_has_come(
    follower: JobProcessor, p: JobProcessor, worker: ScheduledWorker, name: str
) -> None:
    await follower.start_schedule(worker.schedule(rule="0 5 * * *", tz="Europe/Berlin", version=3))
    info = await p.schedules.get(name)
    assert (info.id, info.rule, info.tz, info.version) == (name, "0 5 * * *", "Europe/Berlin", 3)
    assert (info.stream, info.subject, info.count, info.last_tick) == (name, name, 0, None)
    assert info.next_tick is not None
    assert datetime.now(UTC) < info.next_tick < datetime.now(UTC) + timedelta(days=1, hours=1)
    assert name in [each.id for each in await p.schedules.list()]


async def test_a_pause_is_kept_by_all_and_its_ticks_are_skipped_and_told(
    follower: JobProcessor, p: JobProcessor, worker: ScheduledWorker, name: str, seen: Seen
) -> None:
    handle = await follower.start_schedule(worker.schedule(catch_up="all"))
    await until(lambda: len(worker.jobs) >= 2)
    await p.schedules.pause(name, note="the mill is broken")
    await until(lambda: handle.next_tick is None)
    info = await p.schedules.get(name)
    assert (info.paused, info.note, info.next_tick) == (True, "the mill is broken", None)
    await anyio.sleep(5 * INTERVAL)
    before = len(worker.jobs)
    await p.schedules.resume(name)
    await until(lambda: len(worker.jobs) >= before + 2)
    assert not (await p.schedules.get(name)).paused
    skipped = [event.tick for event in seen.of(TickSkipped) if event.reason == "paused"]
    assert len(skipped) >= 4
    # Each tick had a job, or was told to have none.
    ticks = sorted(worker.ticks + skipped)
    assert all(later - tick == timedelta(seconds=INTERVAL) for tick, later in pairwise(ticks))


async def test_firing_enqueues_one_more_job_and_moves_no_tick(
    follower: JobProcessor, p: JobProcessor, worker: ScheduledWorker, name: str
) -> None:
    handle = await follower.start_schedule(worker.schedule(rule=Every(86_400), payload={"n": 1}))
    tick = handle.next_tick
    for count in (1, 2):
        await p.schedules.fire(name)
        await until(lambda count=count: len(worker.jobs) == count)  # type: ignore[misc]
        assert (worker.jobs[-1].payload, worker.jobs[-1].schedule_id) == ({"n": 1}, name)
        assert worker.ticks[-1] < datetime.now(UTC) + timedelta(seconds=LIMIT)

    info = await p.schedules.get(name)
    assert (handle.next_tick, info.next_tick, info.last_tick) == (tick, tick, None)


async def test_a_schedule_that_is_removed_ends_for_all_who_follow_it_and_can_be_declared_again(
    follower: JobProcessor, p: JobProcessor, worker: ScheduledWorker, name: str
) -> None:
    handle = await follower.start_schedule(worker.schedule())
    await until(lambda: len(worker.jobs) >= 1)
    await p.schedules.remove(name)
    with anyio.fail_after(LIMIT):
        await handle.wait_stopped()

    with pytest.raises(ScheduleError, match="no schedule of that id"):
        await p.schedules.get(name)

    assert name not in [each.id for each in await p.schedules.list()]
    count = len(worker.jobs)
    await follower.start_schedule(worker.schedule())
    await until(lambda: len(worker.jobs) >= count + 2)


async def test_a_replacement_is_followed_at_once_by_those_who_declared_otherwise(
    follower: JobProcessor, p: JobProcessor, worker: ScheduledWorker
) -> None:
    old = await follower.start_schedule(worker.schedule(rule=Every(86_400)))
    await (await p.start_schedule(worker.schedule())).stop()
    await until(lambda: len(worker.jobs) >= 2)
    assert old.next_tick is not None


async def test_verbs_on_a_schedule_that_there_is_not_say_so(p: JobProcessor, name: str) -> None:
    for verb in (
        p.schedules.get,
        p.schedules.pause,
        p.schedules.resume,
        p.schedules.fire,
        p.schedules.remove,
    ):
        with pytest.raises(ScheduleError, match="there is no schedule of that id"):
            await verb(name)

        with pytest.raises(ScheduleError, match="is none"):
            await verb("a.b")


def payload(tick: datetime) -> str:
    return tick.isoformat()


async def test_a_payload_that_is_a_function_can_be_fired_only_by_who_has_it(
    follower: JobProcessor, p: JobProcessor, worker: ScheduledWorker, name: str
) -> None:
    await follower.start_schedule(worker.schedule(rule=Every(86_400), payload=payload))
    with pytest.raises(ScheduleError, match="which this processor has not declared"):
        await p.schedules.fire(name)

    await follower.schedules.fire(name)
    await until(lambda: len(worker.jobs) == 1)
    assert worker.jobs[0].payload == worker.ticks[0].isoformat()
