"""Runs whose store is slow, refuses saves, loses them, or does them late."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

from nats_jobs.topology import (
    Conflict,
    MemoryStore,
    Node,
    NodeContext,
    Revision,
    Snapshot,
    Topology,
    run_topology,
)

pytestmark = pytest.mark.anyio


class Troubled(MemoryStore):
    """A store of which `fails` says what happens to the save of a number: nothing, "lost", "done" or "late"."""

    def __init__(self, fails: Callable[[int], str | None] = lambda _: None, delay: float = 0.0) -> None:
        super().__init__()
        self._fails = fails
        self._delay = delay
        self._late: tuple[str, Snapshot, Revision | None] | None = None
        self.saves = 0
        self.history: list[Snapshot] = []

    async def save(self, id: str, snapshot: Snapshot, expected: Revision | None) -> Revision:
        self.saves += 1
        await anyio.sleep(self._delay)
        late, self._late = self._late, None
        if late:
            await super().save(*late)

        trouble = self._fails(self.saves)
        if trouble == "late":
            self._late = id, snapshot, expected

        if trouble in ("late", "lost"):
            raise TimeoutError("no answer")

        revision = await super().save(id, snapshot, expected)
        self.history.append(snapshot)
        if trouble == "done":
            raise TimeoutError("no answer")

        return revision


def chain(length: int) -> Topology:
    async def work(ctx: NodeContext[Any]) -> str:
        await anyio.lowlevel.checkpoint()
        return ctx.node

    names = [f"n{number}" for number in range(length)]
    return Topology(
        {name: Node(work, deps=names[at - 1 : at] if at else []) for at, name in enumerate(names)}
    )


@pytest.mark.parametrize("trouble", ["lost", "done", "late"])
async def test_a_save_that_fails_is_repeated_whether_it_was_done_or_not(trouble: str) -> None:
    store = Troubled(lambda number: trouble if number % 3 == 1 else None)
    snapshot = await run_topology(chain(3), store=store, id="a")
    assert snapshot.status == "completed"
    found = await store.load("a")
    assert found is not None
    assert found[0] == snapshot


async def test_a_store_that_never_answers_ends_the_run_with_its_error() -> None:
    with pytest.raises(TimeoutError):
        await run_topology(chain(1), store=Troubled(lambda _: "lost"), id="a")


async def test_a_conflict_with_somebody_else_is_not_taken_for_a_save_of_ours() -> None:
    store = Troubled(lambda number: "lost" if number == 2 else None)

    async def overtaken(ctx: NodeContext[Any]) -> None:
        found = await store.load("a")
        assert found is not None
        await MemoryStore.save(store, "a", found[0].fork("other"), found[1])

    with pytest.raises(Conflict):
        await run_topology(Topology({"overtaken": Node(overtaken)}), store=store, id="a")


async def test_a_slow_store_is_given_the_newest_state_only_and_the_last_one_holds_all() -> None:
    delay = 0.02
    store = Troubled(delay=delay)
    began = anyio.current_time()
    snapshot = await run_topology(chain(1000), store=store, id="a")
    assert store.saves <= (anyio.current_time() - began) / delay + 3
    found = await store.load("a")
    assert found is not None
    assert found[0] == snapshot
    assert len(snapshot.names("completed")) == 1000


async def test_a_node_that_reports_without_end_is_saved_all_the_same() -> None:
    """A debounce alone would wait for a moment without a change."""
    store = Troubled()

    def is_stored() -> bool:
        return any(isinstance(each["busy"].state, int) for each in store.history)

    async def busy(ctx: NodeContext[Any]) -> None:
        number = 0
        while not is_stored():
            ctx.update_state(number := number + 1)
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(30):
        await run_topology(Topology({"busy": Node(busy)}), store=store, id="a", debounce=0.05, max_wait=0.1)


async def test_a_run_that_is_cancelled_during_a_save_is_stored_as_pending() -> None:
    store = Troubled(delay=0.02)

    async def endless(ctx: NodeContext[Any]) -> None:
        ctx.update_state(1)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(partial(run_topology, Topology({"endless": Node(endless)}), store=store, id="a"))
        while store.saves < 2:
            await anyio.lowlevel.checkpoint()

        group.cancel_scope.cancel()

    found = await store.load("a")
    assert found is not None
    assert (found[0].status, found[0]["endless"].status, found[0]["endless"].state) == (
        "running",
        "pending",
        1,
    )
