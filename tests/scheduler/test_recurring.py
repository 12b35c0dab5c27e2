"""Functions that recur: where they run, how they fail, and how they are stopped."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest

from nats_jobs import JobProcessor, job_processor
from nats_jobs.errors import ScheduleError, UsageError
from nats_jobs.events import FunctionFailed, FunctionReturned
from nats_jobs.scheduler import Every, recurring
from support.jobs import LIMIT, Seen, until

pytestmark = pytest.mark.anyio

INTERVAL = 0.2


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def p(url: str, seen: Seen) -> AsyncIterator[JobProcessor]:
    async with job_processor(url, on_event=seen) as p:
        yield p
        await p.stop(grace=0)


async def test_each_tick_is_run_once_in_one_of_the_processors(url: str, name: str) -> None:
    ran: list[datetime] = []

    @recurring(id=name, rule=Every(INTERVAL), catch_up="all")
    async def function(tick: datetime) -> None:
        ran.append(tick)

    async with job_processor(url) as a, job_processor(url) as b:
        for processor in (a, b):
            processor.run_recurring(function)

        await until(lambda: len(ran) >= 6)
        await a.stop()
        await b.stop()

    assert all(later - tick == timedelta(seconds=INTERVAL) for tick, later in pairwise(sorted(ran)))


async def test_a_function_that_fails_is_told_and_runs_again_at_the_next_tick(
    p: JobProcessor, name: str, seen: Seen
) -> None:
    @recurring(id=name, rule=Every(INTERVAL))
    async def function(tick: datetime) -> None:
        raise RuntimeError("no mail today")

    p.run_recurring(function)
    failed = await seen.wait_for(FunctionFailed, 2)
    assert str(failed[0].error) == "no mail today"
    assert failed[0].tick < failed[1].tick
    assert not seen.of(FunctionReturned)


async def test_a_function_that_takes_too_long_is_cancelled(p: JobProcessor, name: str, seen: Seen) -> None:
    @recurring(id=name, rule=Every(INTERVAL), timeout=0.1)
    async def function(tick: datetime) -> None:
        await anyio.sleep_forever()

    p.run_recurring(function)
    failed = await seen.wait_for(FunctionFailed, 2)
    assert isinstance(failed[0].error, TimeoutError)


async def test_it_does_not_run_twice_at_a_time_and_then_catches_up_with_the_last_tick(
    p: JobProcessor, name: str, seen: Seen
) -> None:
    running = 0

    @recurring(id=name, rule=Every(INTERVAL))
    async def function(tick: datetime) -> None:
        nonlocal running
        assert not running
        running += 1
        await anyio.sleep(3 * INTERVAL)
        running -= 1

    p.run_recurring(function)
    returned = await seen.wait_for(FunctionReturned, 3)
    assert returned[1].tick - returned[0].tick >= timedelta(seconds=3 * INTERVAL)
    assert not seen.of(FunctionFailed)


async def test_a_plain_function_runs_in_a_thread(p: JobProcessor, name: str, seen: Seen) -> None:
    threads: list[int] = []

    @recurring(id=name, rule=Every(INTERVAL))
    def function(tick: datetime) -> None:
        threads.append(threading.get_ident())

    p.run_recurring(function)
    await seen.wait_for(FunctionReturned, 1)
    assert threads[0] != threading.get_ident()


@pytest.mark.parametrize("grace", [0.0, 60.0])
async def test_a_stop_lets_it_go_on_for_the_grace_and_then_cancels_it(
    url: str, name: str, seen: Seen, grace: float
) -> None:
    began, go_on = anyio.Event(), anyio.Event()
    ended: list[str] = []

    @recurring(id=name, rule=Every(INTERVAL))
    async def function(tick: datetime) -> None:
        began.set()
        try:
            await go_on.wait()
        except anyio.get_cancelled_exc_class():
            ended.append("cancelled")
            raise

        ended.append("returned")

    async with job_processor(url, on_event=seen) as p:
        handle = p.run_recurring(function)
        await began.wait()
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: p.stop(grace=grace))
                if grace:
                    await anyio.sleep(2 * INTERVAL)
                    assert not ended
                    go_on.set()

            await handle.wait_stopped()

    assert ended == ["returned" if grace else "cancelled"]


async def test_a_missed_tick_does_not_begin_after_a_stop(url: str, name: str) -> None:
    ran: list[datetime] = []

    @recurring(id=name, rule=Every(INTERVAL))
    async def function(tick: datetime) -> None:
        ran.append(tick)

    async with job_processor(url) as p:
        await until_ran(p, function, ran)

    count = len(ran)
    await anyio.sleep(2 * INTERVAL)
    async with job_processor(url) as p:
        p.run_recurring(function)
        await p.stop()

    assert len(ran) == count


async def until_ran(p: JobProcessor, function: Any, ran: list[datetime]) -> None:
    handle = p.run_recurring(function)
    await until(lambda: ran)
    await handle.stop()


async def test_a_pause_is_kept_and_a_fire_is_refused(p: JobProcessor, name: str, seen: Seen) -> None:
    @recurring(id=name, rule=Every(INTERVAL))
    async def function(tick: datetime) -> None: ...

    handle = p.run_recurring(function)
    await seen.wait_for(FunctionReturned, 1)
    assert (await p.schedules.get(name)).rule == "@every 0.2s"
    with pytest.raises(ScheduleError, match="recurs"):
        await p.schedules.fire(name)

    await p.schedules.remove(name)
    with anyio.fail_after(LIMIT):
        await handle.wait_stopped()


def test_what_cannot_recur_is_refused() -> None:
    async def function(tick: datetime) -> None: ...

    for fields in ({"timeout": 0}, {"run_in": "cloud"}, {"run_in": "process"}, {"id": "a.b"}, {"rule": ""}):
        with pytest.raises(ScheduleError) as caught:
            recurring(**{"id": "a", "rule": "@hourly", **fields})(function)  # type: ignore[arg-type]

        assert caught.value.field == next(iter(fields))


async def test_what_was_not_made_to_recur_is_refused(p: JobProcessor) -> None:
    async def function(tick: datetime) -> None: ...

    with pytest.raises(UsageError, match="does not recur"):
        p.run_recurring(function)  # type: ignore[arg-type]
