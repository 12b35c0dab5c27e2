"""Topologies as jobs, and the stores, on a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from nats_jobs import CancelReason, events, job_processor
from nats_jobs.topology import (
    Conflict,
    FileStore,
    KVStore,
    MemoryStore,
    Node,
    NodeContext,
    SnapshotTooLarge,
    Store,
    Topology,
    TopologyError,
    TopologyFailed,
    _writer,
    cancel_topology,
    dump_snapshot,
    run_topology,
    topology_job,
)
from support.jobs import until_empty
from support.topologies import Scraper, authorisation

pytestmark = pytest.mark.anyio


async def holds_the_contract(store: Store) -> None:
    assert await store.load("a") is None
    done = await run_topology(Topology({"n": Node(_one)}), store=store, id="a")
    found = await store.load("a")
    assert found is not None
    assert found[0].status == done.status == "completed"
    assert found[0]["n"].output == 1
    with pytest.raises(Conflict):
        await store.save("a", done, None)

    with pytest.raises(Conflict):
        await store.save("a", done, found[1] - 1)

    assert await store.save("a", done, found[1]) > found[1]


async def _one(ctx: NodeContext[Any]) -> int:
    return 1


async def test_memory_and_files_refuse_what_is_outdated(tmp_path: Path) -> None:
    await holds_the_contract(MemoryStore())
    await holds_the_contract(FileStore(tmp_path / "runs"))


async def test_a_bucket_refuses_what_is_outdated_and_what_is_too_large(url: str, name: str) -> None:
    async def large(ctx: NodeContext[Any]) -> str:
        return "x" * 1_100_000

    async with job_processor(url) as p:
        store = KVStore(p, name)
        await holds_the_contract(store)
        with pytest.raises(SnapshotTooLarge, match="node 'large' is the largest"):
            await run_topology(Topology({"large": Node(large)}), store=store, id="b")


async def test_a_job_goes_on_where_the_attempt_before_it_failed(url: str, name: str) -> None:
    scraper = Scraper()
    defn = topology_job(scraper.topology, stream=name, store=name, backoff=0.01)

    async with job_processor(url) as p:
        store = KVStore(p, name)
        with pytest.raises(TopologyFailed):
            await run_topology(scraper.topology, store=store, id="run")

        scraper.works, scraper.calls = True, []
        await p.start(defn)
        await p.enqueue(defn, {"topologyId": "run"})
        await until_empty(p.js, name)
        found = await store.load("run")
        assert found is not None
        assert found[0].status == "completed"
        assert scraper.calls == ["attachments", "writeToDB"]

        # Delivered again after it was completed: nothing runs.
        await p.enqueue(defn, {"topologyId": "run"})
        await until_empty(p.js, name)
        assert scraper.calls == ["attachments", "writeToDB"]
        await p.stop()


async def test_a_suspended_run_goes_on_only_when_it_is_answered(url: str, name: str) -> None:
    mails: list[Any] = []
    defn = topology_job(authorisation(mails), stream=name, store=name)
    async with job_processor(url) as p:
        await p.start(defn)
        for _ in range(2):
            await p.enqueue(defn, {"topologyId": "run", "data": "x"})
            await until_empty(p.js, name)

        assert not mails
        await p.resume_topology(defn, "run", answers={"authorization": "yes"})
        await until_empty(p.js, name)
        assert [answer for _, answer in mails] == ["yes"]
        await p.stop()


async def test_answers_that_were_stored_but_not_enqueued_are_enqueued_by_a_second_call(
    url: str, name: str
) -> None:
    mails: list[Any] = []
    defn = topology_job(authorisation(mails), stream=name, store=name)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, {"topologyId": "run", "data": "x"})
        await until_empty(p.js, name)

        # All that a call does which is cut off before it enqueues.
        store = KVStore(p, name)
        found = await store.load("run")
        assert found is not None
        await store.save("run", found[0].answered({"authorization": "yes"}), found[1])

        with pytest.raises(TopologyError, match="does not wait for an answer"):
            await p.resume_topology(defn, "run", answers={"authorization": "no"})

        await p.resume_topology(defn, "run", answers={"authorization": "yes"})
        await until_empty(p.js, name)
        assert [answer for _, answer in mails] == ["yes"]
        await p.stop()


async def test_of_two_different_answers_at_once_one_wins(url: str, name: str) -> None:
    mails: list[Any] = []
    refused: list[str] = []
    defn = topology_job(authorisation(mails), stream=name, store=name)

    async def answer(text: str) -> None:
        try:
            await p.resume_topology(defn, "run", answers={"authorization": text})
        except (Conflict, TopologyError):
            refused.append(text)

    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, {"topologyId": "run", "data": "x"})
        await until_empty(p.js, name)
        async with anyio.create_task_group() as group:
            group.start_soon(answer, "yes")
            group.start_soon(answer, "no")

        await until_empty(p.js, name)
        winner = [text for _, text in mails]
        assert len(winner) == 1
        assert sorted(winner + refused) == ["no", "yes"]
        await p.stop()


async def test_the_id_of_a_run_and_whether_it_is_resumed_can_be_chosen(url: str, name: str) -> None:
    scraper = Scraper()
    scraper.works = True
    defn = topology_job(
        scraper.topology,
        stream=name,
        store=name,
        topology_id=lambda job: f"run-{job.payload['data']}",
        should_resume=lambda snapshot: snapshot.status != "completed",
    )
    async with job_processor(url) as p:
        await p.start(defn)
        for attempt in (1, 2):
            await p.enqueue(defn, {"data": 7})
            await until_empty(p.js, name)
            assert scraper.calls.count("writeToDB") == attempt

        found = await KVStore(p, name).load("run-7")
        assert found is not None
        assert found[0].status == "completed"
        await p.stop()


async def test_an_output_that_does_not_fit_is_not_retried(url: str, name: str) -> None:
    calls: list[str] = []

    async def large(ctx: NodeContext[Any]) -> str:
        calls.append(ctx.node)
        return "x" * 1_100_000

    topology = Topology({"large": Node(large), "after": Node(_one, deps=["large"])})
    defn = topology_job(topology, stream=name, store=name, backoff=0.01)
    async with job_processor(url) as p, p.events() as stream:
        await p.start(defn)
        await p.enqueue(defn, {"topologyId": "run"})
        async for event in stream:
            if isinstance(event, events.DeadLettered):
                assert (event.reason, calls) == ("rejected", ["large"])
                break

        found = await KVStore(p, name).load("run")
        assert found is not None
        assert (found[0].status, found[0]["large"].status) == ("errored", "errored")
        assert "node 'large' is the largest" in found[0]["large"].error["message"]
        await p.stop()


async def test_the_snapshot_says_which_job_made_it_by_the_names_of_the_node_library(
    url: str, name: str
) -> None:
    scraper = Scraper()
    scraper.works = True
    defn = topology_job(scraper.topology, stream=name, store=name)
    async with job_processor(url) as p:
        await p.start(defn)
        enqueued = await p.enqueue(defn, {})
        await until_empty(p.js, name)
        found = await KVStore(p, name).load(f"{name}-{enqueued.sequence}")
        assert found is not None
        assert found[0].extra == {"stream": name, "streamSequence": enqueued.sequence, "numAttempts": 1}
        assert len(scraper.written) == 1
        await p.stop()


async def test_nodes_of_a_job_have_the_context_and_the_limits_of_its_definition(url: str, name: str) -> None:
    most = now = 0
    seen: list[Any] = []

    async def counts(ctx: NodeContext[Any]) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        seen.append(ctx.context)
        await anyio.lowlevel.checkpoint()
        now -= 1

    topology = Topology({f"n{number}": Node(counts) for number in range(6)})
    defn = topology_job(
        topology, stream=name, store=name, max_concurrency=2, context=lambda job: job.payload["customer"]
    )
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, {"customer": 7})
        await until_empty(p.js, name)
        await p.stop()

    assert (most, seen) == (2, [7] * 6)


async def test_a_cancelled_run_is_cut_short_and_no_job_goes_on_with_it(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_writer, "_LOOK_INTERVAL", 0.05)
    reasons: list[Any] = []

    async def endless(ctx: NodeContext[Any]) -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            reasons.append(ctx.reason)

    began = anyio.Event()
    defn = topology_job(Topology({"endless": Node(endless)}), stream=name, store=name)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, {"topologyId": "run"})
        await began.wait()
        store = KVStore(p, name)
        cancelled = await cancel_topology(store, "run", reason="a mistake")
        await until_empty(p.js, name)
        assert reasons == [CancelReason.LEASE_LOST]

        found = await store.load("run")
        assert found is not None
        assert dump_snapshot(found[0]) == dump_snapshot(cancelled)
        assert (found[0].status, found[0].cancelled) == ("errored", "a mistake")
        with pytest.raises(TopologyError, match="was cancelled: a mistake"):
            await p.resume_topology(defn, "run")

        await p.stop()


async def test_what_is_completed_or_not_there_cannot_be_cancelled() -> None:
    store = MemoryStore()
    await run_topology(Topology({"n": Node(_one)}), store=store, id="a")
    with pytest.raises(TopologyError, match="'a' is completed"):
        await cancel_topology(store, "a")

    with pytest.raises(TopologyError, match="there is no run 'b'"):
        await cancel_topology(store, "b")


async def test_a_run_that_failed_for_good_is_tried_again_when_asked_for(url: str, name: str) -> None:
    scraper = Scraper()
    defn = topology_job(scraper.topology, stream=name, store=name, num_attempts=1)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, {"topologyId": "run"})
        await until_empty(p.js, name)
        scraper.works = True
        await p.resume_topology(defn, "run")
        await until_empty(p.js, name)
        assert len(scraper.written) == 1
        await p.stop()


async def test_a_job_whose_graph_has_changed_is_parked_unless_that_is_allowed(url: str, name: str) -> None:
    old = Topology({"one": Node(_one), "wait": Node(type="suspension"), "end": Node(_one, deps=["wait"])})
    new = Topology({"one": Node(_one), "more": Node(_one)})
    strict = topology_job(new, stream=name, store=name)
    lenient = topology_job(new, stream=name, store=name, allow_changed=True)
    async with job_processor(url) as p, p.events() as stream:
        store = KVStore(p, name)
        with pytest.raises(RuntimeError):
            async with old.start(store=store, id="run"):
                raise RuntimeError

        handle = await p.start(strict)
        await p.enqueue(strict, {"topologyId": "run"})
        async for event in stream:
            if isinstance(event, events.DeadLettered):
                break

        await handle.stop()
        await p.start(lenient)
        await p.enqueue(lenient, {"topologyId": "run"})
        await until_empty(p.js, name)
        found = await store.load("run")
        assert found is not None
        assert found[0].names("completed") == ["one", "more"]
        await p.stop()
