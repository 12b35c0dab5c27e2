"""Payloads for later: each is handed over once, none is lost, and a second one like it is refused while it waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from nats_jobs import JobProcessor, job_processor
from nats_jobs.errors import UsageError
from nats_jobs.scheduler import Delayed
from support.jobs import until

pytestmark = pytest.mark.anyio

STREAM = "NATS_JOBS_DELAYED"


@pytest.fixture
async def p(url: str) -> AsyncIterator[JobProcessor]:
    async with job_processor(url) as p:
        yield p
        await p.stop()


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


class Batches:
    def __init__(self) -> None:
        self.all: list[list[Any]] = []
        self.items: list[Delayed] = []
        self.running = 0

    async def __call__(self, batch: Sequence[Delayed]) -> None:
        self.running += 1
        assert self.running == 1
        await anyio.sleep(0.01)
        self.all.append([one.payload for one in batch])
        self.items += batch
        self.running -= 1

    @property
    def payloads(self) -> list[Any]:
        return [payload for batch in self.all for payload in batch]


async def nothing_left(p: JobProcessor, id: str) -> bool:
    """Whether all that is due was settled."""
    return await p.api.get_message(STREAM, {"seq": 1, "next_by_subj": f"nats_jobs.delayed.{id}.*"}) is None


@pytest.mark.smoke
@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow)])
async def test_each_that_is_due_is_handed_over_once_and_none_beyond_the_limit_is_lost(
    p: JobProcessor, name: str, count: int
) -> None:
    due = soon(2)
    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(p.schedule_delayed, name, number, due)

    batches = Batches()
    p.run_delayed(name, batches, limit=100)
    await until(lambda: len(batches.payloads) >= count)
    await until(lambda: nothing_left(p, name))
    assert Counter(batches.payloads) == dict.fromkeys(range(count), 1)
    assert max(map(len, batches.all)) <= 100
    assert {item.due for item in batches.items} == {due}


@pytest.mark.smoke
async def test_the_same_payload_is_refused_while_it_waits_and_keeps_its_time(
    p: JobProcessor, name: str
) -> None:
    due = soon(0.5)
    assert await p.schedule_delayed(name, {"a": 1}, due)
    assert not await p.schedule_delayed(name, {"a": 1}, 0.1)
    assert await p.schedule_delayed(name, {"a": 2}, 3600)
    assert await p.schedule_delayed(f"{name}-other", {"a": 1}, 3600)
    batches = Batches()
    p.run_delayed(name, batches)
    await until(lambda: batches.all)
    assert batches.items == [Delayed({"a": 1}, due)]
    assert datetime.now(UTC) >= due
    # Once it is settled.
    await until(lambda: p.schedule_delayed(name, {"a": 1}, -1))
    await until(lambda: len(batches.all) == 2)


async def test_one_that_is_due_and_not_yet_settled_is_refused_too(p: JobProcessor, name: str) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    async def handle(batch: Sequence[Delayed]) -> None:
        begun.set()
        await go_on.wait()

    p.run_delayed(name, handle)
    await p.schedule_delayed(name, 1, 0)
    await begun.wait()
    assert not await p.schedule_delayed(name, 1, 0)
    go_on.set()
    await until(lambda: nothing_left(p, name))


@pytest.mark.smoke
async def test_a_batch_that_fails_is_handed_over_again(p: JobProcessor, name: str) -> None:
    batches = Batches()
    failed: list[int] = []

    async def handle(batch: Sequence[Delayed]) -> None:
        if not failed:
            failed.append(len(batch))
            raise OSError("down")

        await batches(batch)

    for number in range(5):
        await p.schedule_delayed(name, number, 0)

    p.run_delayed(name, handle)
    await until(lambda: len(batches.payloads) == 5)
    await until(lambda: nothing_left(p, name))
    assert sorted(batches.payloads) == list(range(5))


async def test_a_stop_waits_for_the_handler_and_loses_nothing(url: str, name: str) -> None:
    begun = anyio.Event()
    done: list[Any] = []

    async def slow(batch: Sequence[Delayed]) -> None:
        begun.set()
        await anyio.sleep(0.3)
        done.extend(one.payload for one in batch)

    async with job_processor(url) as p:
        for number in range(3):
            await p.schedule_delayed(name, number, 0)

        handle = p.run_delayed(name, slow, limit=2)
        await begun.wait()
        await handle.stop()
        assert done
        batches = Batches()
        p.run_delayed(name, batches, limit=2)
        await until(lambda: nothing_left(p, name))
        await p.stop()

    assert sorted(done + batches.payloads) == [0, 1, 2]


async def test_two_processes_share_what_is_due(url: str, name: str) -> None:
    batches = Batches(), Batches()
    async with job_processor(url) as one, job_processor(url) as other:
        one.run_delayed(name, batches[0], limit=5)
        other.run_delayed(name, batches[1], limit=5)
        for number in range(40):
            await one.schedule_delayed(name, number, 0.3)

        await until(lambda: len(batches[0].payloads) + len(batches[1].payloads) >= 40)
        await one.stop()
        await other.stop()

    assert Counter(batches[0].payloads + batches[1].payloads) == dict.fromkeys(range(40), 1)


@pytest.mark.parametrize("id", ["", "a.b", "a b", "x" * 65, None])
async def test_a_bad_id_is_refused(p: JobProcessor, id: Any) -> None:
    with pytest.raises(UsageError, match="id is"):
        await p.schedule_delayed(id, 1, 0)

    with pytest.raises(UsageError, match="id is"):
        p.run_delayed(id, Batches())


@pytest.mark.parametrize("when", ["5", datetime(2030, 1, 1), float("inf"), float("nan"), 1e9, True])
async def test_a_bad_time_is_refused(p: JobProcessor, name: str, when: Any) -> None:
    with pytest.raises(UsageError, match="when is"):
        await p.schedule_delayed(name, 1, when)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5])
async def test_a_bad_limit_or_handler_is_refused(p: JobProcessor, name: str, limit: Any) -> None:
    with pytest.raises(UsageError, match="limit is"):
        p.run_delayed(name, Batches(), limit=limit)

    wrong: Any = print
    with pytest.raises(UsageError, match="handler is"):
        p.run_delayed(name, wrong)
