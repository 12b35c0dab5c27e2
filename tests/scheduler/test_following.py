"""Schedules in virtual time, on a ledger in memory: several processes, outages, deploys, overlaps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import anyio
import pytest

from nats_jobs._untrusted import parse_moment
from nats_jobs.events import Event, ScheduleReplaced, TickSkipped
from nats_jobs.jobs import SCHEDULED_FOR
from nats_jobs.scheduler import Schedule
from nats_jobs.scheduler._declaration import declare
from nats_jobs.scheduler._follower import Follower
from support.schedules import NOON, FakeLedger, at, schedule_of
from support.virtual_time import anyio_backend

__all__ = ("anyio_backend",)

pytestmark = pytest.mark.anyio


class Jobs:
    """The stream of the jobs: each is there until it is done."""

    def __init__(self) -> None:
        self.undone: set[int] = set()

    async def has(self, sequence: int) -> bool:
        return sequence in self.undone

    async def check_exists(self) -> None: ...


class Fleet:
    """Processes that follow schedules on one ledger."""

    def __init__(self) -> None:
        self.ledger = FakeLedger()
        self.jobs = Jobs()
        self.events: list[Event] = []
        self._began = anyio.current_time()

    def now(self) -> datetime:
        return at(anyio.current_time() - self._began)

    async def follow(
        self, schedule: Schedule[Any], *, skew: float = 0.0, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Declare and follow it until cancelled, by a clock that differs by `skew` seconds."""
        follower = Follower(
            declare(schedule, "JOBS"),
            self.ledger,
            self.jobs,
            now=lambda: self.now() + timedelta(seconds=skew),
            emit=self.events.append,
        )
        due = await follower.declare()
        while due is not None and not until():
            now = self.now() + timedelta(seconds=skew)
            if due > now:
                await anyio.sleep((due - now).total_seconds())
            else:
                due = await follower.step(now)

    def ticks(self) -> list[float]:
        return [
            (parse_moment(headers[SCHEDULED_FOR], "") - NOON).total_seconds()
            for headers in self.ledger.headers()
        ]

    def skipped(self, reason: str) -> list[float]:
        return [
            (event.tick - NOON).total_seconds()
            for event in self.events
            if isinstance(event, TickSkipped) and event.reason == reason
        ]


async def run(seconds: float, *follow: Callable[[], Any]) -> None:
    """Let processes work for so many seconds of virtual time."""
    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as group:
            for function in follow:
                group.start_soon(function)


async def test_each_tick_is_enqueued_once_by_any_number_of_processes_whose_clocks_differ() -> None:
    fleet = Fleet()
    schedule = schedule_of(catch_up="all")
    await run(60.5, *(partial(fleet.follow, schedule, skew=skew) for skew in (-2.0, -1.0, 0.0, 2.0)))
    ticks = fleet.ticks()
    # The one that is ahead is quicker, and the one that is behind may have declared it.
    assert ticks == [ticks[0] + n for n in range(len(ticks))]
    assert ticks[-1] == 62.0


async def test_a_process_that_comes_back_catches_up_as_the_policy_says() -> None:
    for catch_up, expected in (("none", []), ("last", [10.0]), ("all", [float(n) for n in range(1, 11)])):
        fleet = Fleet()
        schedule = schedule_of(catch_up=catch_up)
        await run(0.5, partial(fleet.follow, schedule))
        await anyio.sleep(10.0)
        await run(1.0, partial(fleet.follow, schedule))
        assert fleet.ticks() == [*expected, 11.0]
        assert len(fleet.skipped("none") + fleet.skipped("last")) == 10 - len(expected)


@pytest.mark.parametrize("order", ["old first", "new first"])
async def test_two_programs_side_by_side_are_one_schedule_whose_rule_changes_at_one_instant(
    order: str,
) -> None:
    fleet = Fleet()
    old, new = (
        schedule_of(rule="@every 1s"),
        schedule_of(rule="@every 0.5s", version=int(order == "old first")),
    )

    async def deploy() -> None:
        """Three processes, replaced one after the other; both programs run side by side for a while."""
        async with anyio.create_task_group() as group:
            scopes = []
            for number, schedule in enumerate((old, old, old, new, new, new)):
                scope = anyio.CancelScope()
                scopes.append(scope)

                async def process(
                    schedule: Schedule[Any] = schedule, scope: anyio.CancelScope = scope
                ) -> None:
                    with scope:
                        await fleet.follow(schedule)

                group.start_soon(process)
                await anyio.sleep(0.4 if number < 2 else 2.3)
                if number > 2:
                    scopes[number - 3].cancel()

    await run(20.25, deploy)
    ticks = fleet.ticks()
    change = next(n for n, tick in enumerate(ticks) if tick % 1)
    assert ticks[:change] == [float(n) for n in range(1, change + 1)]
    assert ticks[change:] == [ticks[change] + n / 2 for n in range(len(ticks) - change)]
    assert ticks[-1] == 20.0
    # Told by the one that replaced it, and by each that had followed the old one.
    assert len([event for event in fleet.events if isinstance(event, ScheduleReplaced)]) <= 6


async def test_of_two_versions_the_higher_one_stays_whichever_is_declared_last() -> None:
    for versions in ((1, 2), (2, 1)):
        fleet = Fleet()
        for version in versions:
            schedule = schedule_of(rule="@every 2s" if version == 2 else "@every 3s", version=version)
            await run(0.1, partial(fleet.follow, schedule))

        stored = await fleet.ledger.read("s")
        assert stored is not None
        assert stored.record.version == 2
        assert stored.record.terms.rule == "@every 2s"
        assert len([event for event in fleet.events if isinstance(event, ScheduleReplaced)]) == 1


async def test_what_was_missed_of_the_replaced_rule_is_caught_up_before_it_is_replaced() -> None:
    """Deploys every day must not keep a weekly job from running."""
    fleet = Fleet()
    await run(0.5, partial(fleet.follow, schedule_of(rule="@every 10s")))
    await anyio.sleep(12.0)
    await run(0.1, partial(fleet.follow, schedule_of(rule="@every 10s", payload="new")))
    assert fleet.ticks() == [10.0]
    await run(10.0, partial(fleet.follow, schedule_of(rule="@every 10s", payload="newer")))
    assert fleet.ticks() == [10.0, 20.0]


async def test_declaring_it_again_and_again_loses_and_doubles_no_tick() -> None:
    fleet = Fleet()

    async def restless() -> None:
        while True:
            with anyio.move_on_after(0.29):
                await fleet.follow(schedule_of())

    await run(20.5, *[restless] * 10)
    assert fleet.ticks() == [float(n) for n in range(1, 21)]
    assert fleet.ledger.writes == 21


async def test_with_overlap_skip_no_job_is_enqueued_while_the_one_before_is_there() -> None:
    fleet = Fleet()

    async def worker() -> None:
        done = 0
        while True:
            while len(fleet.ledger.jobs) == done:
                await anyio.sleep(0.01)

            done += 1
            assert not fleet.jobs.undone
            fleet.jobs.undone.add(done)
            await anyio.sleep(2.5)
            fleet.jobs.undone.remove(done)

    schedule = schedule_of(overlap="skip")
    await run(20.5, worker, partial(fleet.follow, schedule), partial(fleet.follow, schedule))
    assert fleet.ticks() == [1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 19.0]
    assert sorted(fleet.ticks() + fleet.skipped("overlap")) == [float(n) for n in range(1, 21)]


async def test_a_limit_ends_it_for_everybody() -> None:
    fleet = Fleet()
    ended: list[str] = []

    async def process() -> None:
        await fleet.follow(schedule_of(limit=3))
        ended.append("ended")

    await run(10.0, process, process)
    assert fleet.ticks() == [1.0, 2.0, 3.0]
    assert ended == ["ended"] * 2


async def test_a_record_that_was_purged_is_declared_again_from_where_it_was() -> None:
    fleet = Fleet()

    async def purge() -> None:
        await anyio.sleep(3.5)
        fleet.ledger.purge()

    await run(6.5, partial(fleet.follow, schedule_of()), partial(fleet.follow, schedule_of()), purge)
    assert fleet.ticks() == [float(n) for n in range(1, 7)]


def next_second(tick: datetime) -> datetime:
    return tick + timedelta(seconds=1)


def tick_as_payload(tick: datetime) -> str:
    return tick.isoformat()


async def test_who_does_not_have_the_functions_of_a_schedule_leaves_its_ticks_to_those_who_have() -> None:
    fleet = Fleet()
    with_functions = schedule_of(rule=next_second, payload=tick_as_payload, version=1)
    await run(3.5, partial(fleet.follow, with_functions), partial(fleet.follow, schedule_of()))
    assert len(fleet.ticks()) == 3
    await run(3.0, partial(fleet.follow, schedule_of()))
    assert len(fleet.ticks()) == 3


async def test_jitter_is_the_same_whoever_enqueues_the_tick_and_moves_only_the_start() -> None:
    headers = []
    for _ in range(2):
        fleet = Fleet()
        await run(1.5, partial(fleet.follow, schedule_of(jitter=30.0)))
        headers.append(fleet.ledger.headers()[0])

    assert headers[0] == headers[1]
    start = parse_moment(headers[0]["Nats-Jobs-Not-Before"], "")
    assert at(1) <= start <= at(31)
    assert parse_moment(headers[0][SCHEDULED_FOR], "") == at(1)
