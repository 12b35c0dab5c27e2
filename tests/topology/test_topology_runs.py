"""Runs and resumes: the rules, on each backend."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from nats_jobs import CancelReason
from nats_jobs.errors import RemoteError
from nats_jobs.topology import (
    UNSET,
    GraphChanged,
    MemoryStore,
    Node,
    NodeContext,
    NodeDied,
    NodeTimeout,
    Topology,
    TopologyError,
    TopologyFailed,
    dump_snapshot,
    load_snapshot,
    none,
    resume_topology,
    run_topology,
    start,
)
from support import in_a_process
from support.topologies import Scraper, authorisation, candidate

pytestmark = pytest.mark.anyio


async def nothing(ctx: NodeContext[Any]) -> None:
    pass


async def data_of(ctx: NodeContext[Any]) -> list[Any]:
    return list(ctx.data)


def statuses(snapshot: Any) -> dict[str, str]:
    return {name: state.status for name, state in snapshot.nodes.items()}


async def test_the_scraper_fails_and_resumes_where_it_stopped() -> None:
    scraper = Scraper()
    with pytest.raises(TopologyFailed) as caught:
        await run_topology(scraper.topology)

    failed = caught.value.snapshot
    assert statuses(failed) == {
        "api": "completed",
        "details": "completed",
        "attachments": "errored",
        "writeToDB": "pending",
    }
    assert failed.status == "errored"
    assert failed["attachments"].state["index"] == 0
    assert "no such attachment" in failed["attachments"].error["stack"]
    assert isinstance(caught.value.errors["attachments"], ValueError)

    scraper.works, scraper.calls = True, []
    done = await resume_topology(scraper.topology, load_snapshot(dump_snapshot(failed)))
    assert scraper.calls == ["attachments", "writeToDB"]
    assert done.status == "completed"
    assert done["writeToDB"].output is None
    assert done["details"] == load_snapshot(dump_snapshot(failed))["details"]
    assert scraper.written == [(done["details"].output, done["attachments"].output)]
    assert await resume_topology(scraper.topology, done) is done


@pytest.mark.parametrize(
    ("person", "selected", "completed"),
    [
        ("long", "qualified", {"qualified"}),
        ("short", "notQualified", {"notQualified", "removeCandidate"}),
        ("nobody", None, set()),
    ],
)
async def test_the_candidate_takes_one_branch(person: str, selected: Any, completed: set[str]) -> None:
    done = await run_topology(candidate(), data=person)
    assert done.status == "completed"
    assert done["determineIfQualified"].selected == selected
    assert set(done.names("completed")) == completed | {"lookup", "determineIfQualified"}
    assert len(done.names("skipped")) == 3 - len(completed)


async def test_an_unknown_branch_fails_the_node_by_name() -> None:
    with pytest.raises(TopologyFailed, match="branch not found") as caught:
        await run_topology(candidate(), data="long", context="typo")

    snapshot = caught.value.snapshot
    assert snapshot["determineIfQualified"].status == "errored"
    assert snapshot["determineIfQualified"].selected == "qualifed"
    assert not snapshot.names("skipped")


async def test_the_authorisation_waits_until_it_is_answered_by_name() -> None:
    mails: list[Any] = []
    topology = authorisation(mails)
    suspended = await run_topology(topology, data="x")
    assert suspended.status == "suspended"
    assert suspended.suspended == ["authorization"]
    assert suspended["email"].status == "suspended"

    again = await resume_topology(topology, load_snapshot(dump_snapshot(suspended)))
    assert again.status == "suspended"
    assert not mails
    with pytest.raises(
        TopologyError, match="'email' does not wait for an answer; those that do: authorization"
    ):
        await resume_topology(topology, again, answers={"email": True})

    done = await resume_topology(topology, again, answers={"authorization": {"by": "me"}})
    assert done.status == "completed"
    assert mails == [((suspended["lookupA"].output, suspended["lookupB"].output), {"by": "me"})]
    assert done["authorization"].output == {"by": "me"}


async def test_answering_one_suspension_releases_only_its_dependents() -> None:
    topology = Topology(
        {
            "one": Node(type="suspension"),
            "other": Node(type="suspension"),
            "a": Node(nothing, deps=["one"]),
            "b": Node(nothing, deps=["other"]),
            "both": Node(nothing, deps=["one", "other"]),
        }
    )
    first = await run_topology(topology)
    second = await resume_topology(topology, first, answers={"one": None})
    assert statuses(second) | {"one": "", "other": ""} == {
        "one": "",
        "other": "",
        "a": "completed",
        "b": "suspended",
        "both": "suspended",
    }
    third = await resume_topology(topology, second, answers={"other": 1})
    assert third.status == "completed"


async def test_a_stopped_run_whose_node_returns_is_not_completed() -> None:
    """The Node library calls it completed, skips the rest, and a later resume does nothing."""
    topology = Topology({"a": Node(nothing), "b": Node(nothing, deps=["a"])})
    async with start(topology) as run:
        run.stop()
        # What was started goes on to its end.

    assert run.snapshot.status == "running"
    done = await resume_topology(topology, run.snapshot)
    assert done.status == "completed"
    assert done.names("completed") == ["a", "b"]


async def test_a_node_that_outlasts_the_grace_is_pending_with_its_state() -> None:
    seen: list[Any] = []

    async def long(ctx: NodeContext[Any]) -> None:
        ctx.update_state({"index": 1})
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            seen.append((ctx.reason, ctx.stopping))

    began = anyio.Event()
    async with start(Topology({"long": Node(long), "after": Node(nothing, deps=["long"])})) as run:
        await began.wait()
        run.stop(grace=0.01)

    assert seen == [(CancelReason.STOP, True)]
    assert run.snapshot.status == "running"
    assert run.snapshot["long"].status == "pending"
    assert run.snapshot["long"].state == {"index": 1}


async def test_a_run_that_is_cancelled_from_outside_can_be_resumed() -> None:
    store = MemoryStore()

    async def long(ctx: NodeContext[Any]) -> None:
        ctx.update_state(1)
        scope.cancel()
        await anyio.sleep_forever()

    topology = Topology({"long": Node(long), "after": Node(nothing, deps=["long"])})
    with anyio.CancelScope() as scope:
        await run_topology(topology, store=store, id="x")

    found = await store.load("x")
    assert found is not None
    assert found[0].status == "running"
    assert statuses(found[0]) == {"long": "pending", "after": "pending"}
    assert found[0]["long"].state == 1


async def test_siblings_of_a_failed_node_go_on_and_all_errors_are_there() -> None:
    async def fails(ctx: NodeContext[Any]) -> None:
        raise KeyError(ctx.node)

    def fails_in_a_thread(ctx: NodeContext[Any]) -> None:
        raise OSError(ctx.node)

    topology = Topology(
        {
            "a": Node(fails),
            "b": Node(fails_in_a_thread),
            "c": Node(fails, type="branching"),
            "d": Node(nothing),
            "e": Node(nothing, deps=["d"]),
            "f": Node(nothing, deps=["c"]),
        }
    )
    with pytest.raises(TopologyFailed) as caught:
        await run_topology(topology)

    assert {name: type(error) for name, error in caught.value.errors.items()} == {
        "a": KeyError,
        "b": OSError,
        "c": KeyError,
    }
    assert caught.value.snapshot.names("completed") == ["d", "e"]
    assert caught.value.snapshot.names("pending") == ["f"]


async def test_fail_fast_cancels_the_siblings() -> None:
    reasons: list[Any] = []

    async def waits(ctx: NodeContext[Any]) -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            reasons.append(ctx.reason)

    async def fails(ctx: NodeContext[Any]) -> None:
        await began.wait()
        raise ValueError

    began = anyio.Event()
    with pytest.raises(TopologyFailed) as caught:
        await run_topology(Topology({"waits": Node(waits), "fails": Node(fails)}), fail_fast=True)

    assert reasons == [CancelReason.CANCELLED]
    assert statuses(caught.value.snapshot) == {"waits": "pending", "fails": "errored"}


async def test_a_node_is_retried_as_often_as_it_says_and_keeps_its_state() -> None:
    seen: list[Any] = []

    async def fails(ctx: NodeContext[Any]) -> None:
        seen.append((ctx.attempt, ctx.state))
        ctx.update_state(ctx.attempt)
        raise ValueError

    with pytest.raises(TopologyFailed):
        await run_topology(Topology({"fails": Node(fails, retries=2, backoff=0)}))

    assert seen == [(1, None), (2, 1), (3, 2)]


async def test_a_node_that_takes_too_long_sees_why() -> None:
    reasons: list[Any] = []

    async def long(ctx: NodeContext[Any]) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            reasons.append(ctx.reason)

    with pytest.raises(TopologyFailed) as caught:
        await run_topology(
            Topology({"long": Node(long, timeout=0.01, retries=1, backoff=0), "b": Node(nothing)})
        )

    assert isinstance(caught.value.errors["long"], NodeTimeout)
    assert reasons == [CancelReason.TIMEOUT] * 2
    assert caught.value.snapshot["b"].status == "completed"


async def test_a_join_below_a_branch_is_skipped_unless_any_is_enough() -> None:
    async def left(ctx: NodeContext[Any]) -> Any:
        return ctx.branch("left")

    def graph(join: Any) -> Topology:
        return Topology(
            {
                "choose": Node(left, type="branching"),
                "left": Node(data_of, deps=["choose"]),
                "right": Node(data_of, deps=["choose"]),
                "join": Node(data_of, deps=["left", "right"], join=join),
            }
        )

    assert (await run_topology(graph("all"), data=1))["join"].status == "skipped"
    assert (await run_topology(graph("any"), data=1))["join"].output == [[1]]
    assert ":::skipped" not in graph("any").to_mermaid()


async def test_input_is_a_list_in_the_order_of_the_dependencies() -> None:
    async def pick(ctx: NodeContext[Any]) -> Any:
        return ctx.branch("d")

    topology = Topology(
        {
            "a": Node(data_of),
            "b": Node(nothing),
            "c": Node(pick, deps=["b", "a"], type="branching"),
            "d": Node(data_of, deps=["c", "a"]),
        }
    )
    done = await run_topology(topology, data=[7])
    assert done["a"].input == ([7],)
    assert done["d"].input == (None, [[7]], [[7]])
    assert (await run_topology(topology))["a"].input is UNSET


async def test_a_mapped_node_keeps_the_items_that_are_done() -> None:
    calls: list[int] = []

    async def give(ctx: NodeContext[Any]) -> list[int]:
        return [1, 2, 3]

    async def double(ctx: NodeContext[Any]) -> int:
        (item,) = ctx.data
        calls.append(item)
        if item == 2 and ctx.context != "works":
            raise ValueError(item)

        return 2 * item  # type: ignore[no-any-return]

    topology = Topology({"give": Node(give), "double": Node(double, deps=["give"], map=True)})
    with pytest.raises(TopologyFailed) as caught:
        await run_topology(topology)

    failed = load_snapshot(dump_snapshot(caught.value.snapshot))
    assert [item.status for item in failed["double"].items or ()] == ["completed", "errored", "completed"]
    calls.clear()
    done = await resume_topology(topology, failed, context="works")
    assert calls == [2]
    assert done["double"].output == [2, 4, 6]


async def test_a_sub_graph_gets_the_input_of_its_node_and_gives_its_last_output() -> None:
    inner = Topology({"x": Node(data_of), "y": Node(data_of, deps=["x"])})
    outer = Topology({"a": Node(data_of), "in": Node(inner, deps=["a"]), "z": Node(data_of, deps=["in"])})
    done = await run_topology(outer, data=1)
    assert done["in.x"].input == ([1],)
    assert done["in"].output == done["in.y"].output
    assert done["z"].input == (done["in"].output,)


async def test_a_changed_graph_is_refused_by_its_differences_unless_allowed() -> None:
    scraper = Scraper()
    with pytest.raises(TopologyFailed) as caught:
        await run_topology(scraper.topology)

    changed = Topology(
        {
            "api": Node(nothing),
            "details": Node(nothing, deps=["api"]),
            "writeToDB": Node(data_of, deps=["details"]),
            "more": Node(nothing, deps=["details"]),
        }
    )
    with pytest.raises(GraphChanged) as refused:
        await resume_topology(changed, caught.value.snapshot)

    assert "'attachments' is missing" in str(refused.value)
    assert "'writeToDB' depended on details, attachments and depends on details" in str(refused.value)
    assert "'more' is new" in str(refused.value)
    done = await resume_topology(changed, caught.value.snapshot, allow_changed=True)
    assert done.status == "completed"
    assert done["details"].output == caught.value.snapshot["details"].output


async def test_a_subset_stays_a_subset() -> None:
    topology = Topology(
        {"a": Node(nothing), "b": Node(type="suspension"), "c": Node(nothing, deps=["a", "b"])}
    )
    first = await run_topology(topology, exclude=["a"])
    done = await resume_topology(topology, first, answers={"b": 1})
    assert statuses(done) == {"b": "completed", "c": "completed"}


async def test_a_fork_runs_again_from_a_node_on_and_drops_the_answers_below() -> None:
    mails: list[Any] = []
    topology = authorisation(mails)
    first = await run_topology(topology, data="x")
    done = await resume_topology(topology, first, answers={"authorization": 1})
    fork = done.fork("second", resume_from="lookupA")
    again = await resume_topology(topology, fork, data="x")
    assert again.id == "second"
    assert again.suspended == ["authorization"]
    assert again["lookupB"] == done["lookupB"]
    assert len(mails) == 1
    assert (await resume_topology(topology, done, resume_from="email")).status == "completed"
    assert len(mails) == 2


async def test_a_snapshot_never_changes_and_an_input_is_a_copy() -> None:
    async def give(ctx: NodeContext[Any]) -> list[int]:
        return [1]

    async def spoils(ctx: NodeContext[Any]) -> None:
        ctx.data[0].append(2)

    topology = Topology({"give": Node(give), "spoils": Node(spoils, deps=["give"])})
    async with topology.start() as run:
        early = run.snapshot

    assert early["give"].status == "pending"
    assert run.snapshot["give"].output == [1]


async def test_snapshots_are_a_stream_that_ends_with_the_last_one() -> None:
    async with start(Topology({"a": Node(nothing), "b": Node(nothing, deps=["a"])})) as run:
        seen = [snapshot.status async for snapshot in run]

    assert seen[-1] == "completed"


async def test_no_more_nodes_run_at_once_than_allowed() -> None:
    most = now = 0

    async def counts(ctx: NodeContext[Any]) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await anyio.lowlevel.checkpoint()
        now -= 1

    await run_topology(Topology({f"n{i}": Node(counts) for i in range(100)}), max_concurrency=10)
    assert most == 10


async def test_a_plain_function_runs_in_a_thread_and_may_record_its_state() -> None:
    def plain(ctx: NodeContext[Any]) -> str:
        ctx.update_state(5)
        assert ctx.reason is None
        return threading.current_thread().name

    done = await run_topology(Topology({"plain": Node(plain)}))
    assert done["plain"].output != threading.current_thread().name
    assert done["plain"].state == 5


async def test_a_plain_function_runs_in_a_process_and_may_record_its_state() -> None:
    topology = Topology(
        {
            "pid": Node(in_a_process.pid, run_in="process"),
            "give": Node(in_a_process.give, run_in="process"),
            "double": Node(in_a_process.double, deps=["give"], map=True, run_in="process"),
            "fails": Node(in_a_process.fails, run_in="process"),
            "dies": Node(in_a_process.dies, run_in="process"),
        }
    )
    with pytest.raises(TopologyFailed) as caught:
        await run_topology(topology, context={"numbers": [1, 2]})

    failed = caught.value.snapshot
    assert failed["double"].output == [2, 4]
    assert failed["pid"].state == "half"
    assert failed["pid"].output != os.getpid()
    assert isinstance(caught.value.errors["fails"], RemoteError)
    assert isinstance(caught.value.errors["dies"], NodeDied)
    assert "ended before its function returned" in failed["dies"].error["message"]


async def test_a_process_is_killed_when_its_node_takes_too_long(tmp_path: Path) -> None:
    topology = Topology({"sleeps": Node(in_a_process.sleeps, run_in="process", timeout=2.0)})
    with pytest.raises(TopologyFailed) as caught:
        await run_topology(topology, data=str(tmp_path / "pid"))

    assert isinstance(caught.value.errors["sleeps"], NodeTimeout)
    assert caught.value.snapshot["sleeps"].state == "begun"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_node_that_ends_in_its_thread_after_all_is_completed() -> None:
    began = threading.Event()

    def slow(ctx: NodeContext[Any]) -> str:
        began.set()
        while ctx.reason is None:
            time.sleep(0.001)

        return "done"

    async with Topology({"slow": Node(slow)}).start() as run:
        await to_thread.run_sync(began.wait)
        run.stop(grace=0)

    assert run.snapshot.status == "completed"


async def test_a_chain_of_skipped_nodes_is_longer_than_python_recurses() -> None:
    async def choose(ctx: NodeContext[Any]) -> Any:
        return none()

    nodes = {"c": Node(choose, type="branching"), "n0": Node(nothing, deps=["c"], join="any")}
    nodes |= {f"n{i}": Node(nothing, deps=[f"n{i - 1}"], join="any") for i in range(1, 3000)}
    done = await run_topology(Topology(nodes))
    assert len(done.names("skipped")) == 3000
