"""Slots: never more than the limit, each piece of work exactly once, and none idle while there is work."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from itertools import pairwise

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings, strategies as st

from nats_jobs.jobs._slots import Rest, Slots
from nats_jobs.jobs._task_watch import TaskWatch
from support.virtual_time import VirtualLoop, anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

LIMIT = 1000.0

Use = Callable[["Bench"], Awaitable[None]]
Shape = tuple[float, ...]
"""What a piece of work does: wait so long, and so on. Zero is to give way once; nothing is never to wait."""

SHAPES = st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 7.0]), max_size=4).map(tuple)


class Bench:
    """Ready work, slots that perform it, and the books of both."""

    def __init__(self, group: anyio.abc.TaskGroup, limit: int) -> None:
        self.ready: deque[tuple[int, Shape]] = deque()
        self.limit = limit
        self.running: set[int] = set()
        self.ended: list[int] = []
        self.most = 0
        self.freed = 0
        self.slots: Slots[tuple[int, Shape]] = Slots(limit, self._take, self._perform, self._note_freed)
        self.slots.open(group)

    def add(self, number: int, shape: Shape) -> None:
        self.ready.append((number, shape))
        self.slots.wake()

    async def until_ended(self, count: int) -> None:
        with anyio.fail_after(LIMIT):
            while len(self.ended) < count:
                await anyio.sleep(0.5)

    def _take(self) -> tuple[int, Shape] | None:
        return self.ready.popleft() if self.ready else None

    async def _perform(self, work: tuple[int, Shape], watch: TaskWatch) -> Rest | None:
        number, shape = work
        assert number not in self.running
        self.running.add(number)
        self.most = max(self.most, len(self.running))
        assert self.slots.busy == len(self.running) <= self.limit
        for step, seconds in enumerate(shape):
            if not step:
                self.slots.wake()

            await anyio.sleep(seconds)

        self.running.remove(number)
        self.ended.append(number)
        return None

    def _note_freed(self) -> None:
        self.freed += 1
        assert self.slots.busy == len(self.running) < self.limit


async def with_bench(limit: int, use: Use) -> Bench:
    group = anyio.create_task_group()
    bench = Bench(group, limit)
    async with group:
        await use(bench)
        group.cancel_scope.cancel("the test is over")

    return bench


def run_on(backend: str, limit: int, use: Use) -> Bench:
    """Run in virtual time, on a loop of its own for each example."""
    if backend == "trio":
        from trio.testing import MockClock

        options: dict[str, object] = {"clock": MockClock(autojump_threshold=0)}
    else:
        options = {"loop_factory": VirtualLoop}

    return anyio.run(with_bench, limit, use, backend=backend, backend_options=options)


# Whatever the shapes...


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    limit=st.integers(1, 5),
    work=st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.3, 2.0]), SHAPES), max_size=30),
)
@settings(max_examples=40)
def test_each_piece_is_performed_once_and_never_more_than_the_limit_at_a_time(
    backend: str, limit: int, work: list[tuple[float, Shape]]
) -> None:
    async def use(bench: Bench) -> None:
        for number, (pause, shape) in enumerate(work):
            if pause:
                await anyio.sleep(pause)

            bench.add(number, shape)

        await bench.until_ended(len(work))
        with anyio.fail_after(LIMIT):
            await bench.slots.wait_idle()

        assert bench.slots.busy == 0

    bench = run_on(backend, limit, use)
    assert sorted(bench.ended) == list(range(len(work)))
    assert bench.freed == len(work)
    assert bench.most <= limit


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(limit=st.integers(1, 5), shapes=st.lists(SHAPES, max_size=30))
@settings(max_examples=40)
def test_no_slot_stays_free_while_there_is_work(backend: str, limit: int, shapes: list[Shape]) -> None:
    async def use(bench: Bench) -> None:
        for number, shape in enumerate(shapes):
            bench.add(number, shape)

        with anyio.fail_after(LIMIT):
            while len(bench.ended) < len(shapes):
                # Who is on its way has arrived, once everybody has had turns enough.
                for _ in range(3 * limit + len(shapes)):
                    await checkpoint()

                assert not bench.ready or bench.slots.busy == limit
                await anyio.sleep(0.1)

    run_on(backend, limit, use)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(limit=st.integers(1, 4), shapes=st.lists(SHAPES, max_size=20))
@settings(max_examples=40)
def test_work_is_begun_in_its_order(backend: str, limit: int, shapes: list[Shape]) -> None:
    begun: list[int] = []

    async def use(bench: Bench) -> None:
        take = bench._take

        def noting() -> tuple[int, Shape] | None:
            work = take()
            if work is not None:
                begun.append(work[0])

            return work

        bench.slots._take = noting
        for number, shape in enumerate(shapes):
            bench.add(number, shape)

        await bench.until_ended(len(shapes))

    begun.clear()
    run_on(backend, limit, use)
    assert begun == list(range(len(shapes)))


# By themselves...


async def test_work_that_never_waits_is_followed_in_the_same_slot() -> None:
    async def use(bench: Bench) -> None:
        for number in range(200):
            bench.add(number, ())

        await bench.until_ended(200)

    bench = await with_bench(5, use)
    assert bench.most == 1
    assert bench.slots._slots == 1


async def test_work_that_never_waits_lets_the_others_have_their_turns() -> None:
    turns: list[int] = []

    async def use(bench: Bench) -> None:
        for number in range(1000):
            bench.add(number, ())

        while len(bench.ended) < 1000:
            turns.append(len(bench.ended))
            await checkpoint()

    await with_bench(1, use)
    longest = max(after - before for before, after in pairwise(turns))
    assert longest <= 64


async def test_slots_are_made_as_they_are_needed_and_used_again() -> None:
    async def use(bench: Bench) -> None:
        for number in range(3):
            bench.add(number, (1.0,))

        await bench.until_ended(3)
        assert bench.slots._slots <= 4
        for number in range(3, 30):
            bench.add(number, (1.0,))

        await bench.until_ended(30)
        assert bench.slots._slots == 10

    bench = await with_bench(10, use)
    assert bench.most == 10


async def test_waiting_for_idle_ends_at_once_when_nothing_runs() -> None:
    async def use(bench: Bench) -> None:
        with anyio.fail_after(1):
            await bench.slots.wait_idle()

    await with_bench(2, use)


async def test_waiting_for_idle_lasts_until_the_last_piece_has_ended() -> None:
    async def use(bench: Bench) -> None:
        bench.add(0, (1.0,))
        bench.add(1, (5.0,))
        await anyio.sleep(0.5)
        await bench.slots.wait_idle()
        assert sorted(bench.ended) == [0, 1]

    await with_bench(2, use)


async def test_waiting_for_idle_goes_on_while_a_slot_takes_one_piece_after_the_other() -> None:
    async def use(bench: Bench) -> None:
        for number in range(3):
            bench.add(number, (1.0,))

        await anyio.sleep(0.5)
        await bench.slots.wait_idle()
        assert bench.ended == [0, 1, 2]

    await with_bench(1, use)


async def test_waking_without_work_does_no_harm() -> None:
    async def use(bench: Bench) -> None:
        for _ in range(5):
            bench.slots.wake()
            await anyio.sleep(0.1)

        bench.add(0, (1.0,))
        bench.add(1, (1.0,))
        await anyio.sleep(0.5)
        assert bench.slots.busy == 2

    await with_bench(2, use)


async def test_waking_several_times_brings_one_slot_which_brings_the_next() -> None:
    async def use(bench: Bench) -> None:
        for number in range(3):
            bench.add(number, (1.0,))

        await bench.until_ended(3)
        looked: list[int] = []
        bench.slots._take = lambda: looked.append(1)
        for _ in range(3):
            bench.slots.wake()

        await anyio.sleep(1)
        assert len(looked) == 1

    await with_bench(3, use)
