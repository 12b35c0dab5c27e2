"""Worker processes that are killed, or cut off from the server, in the middle of runs. What counts is the ledger."""

from __future__ import annotations

import random
import subprocess
from contextlib import AsyncExitStack, ExitStack
from itertools import count, groupby, pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.js.api import ConsumerConfig

from nats_jobs import CancelReason, JobProcessor, job_processor
from nats_jobs.errors import NatsJobsError
from nats_jobs.server import run_server
from nats_jobs.topology import KVStore, Node, NodeContext, Topology, run_topology, topology_job
from support.jobs import until, until_empty
from support.proxy import fault_proxy
from support.topology_worker import definition, shape, topology_of, topology_worker
from support.worker import Ledger

pytestmark = pytest.mark.anyio


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.mark.parametrize(
    ("runs", "more_kills"),
    [(6, False), pytest.param(100, True, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_runs_whose_workers_are_killed_come_to_the_result_of_an_undisturbed_run(
    url: str, name: str, ledger: Ledger, backend: str, runs: int, more_kills: bool
) -> None:
    """In each run a worker dies at a moment of its own; with `more_kills` others do at any time."""
    async with job_processor(url) as p:
        defn = definition(p, name, ledger)
        handle = await p.start(defn)  # Sets up the stream.
        await handle.stop()
        await p.enqueue_many(defn, [{"number": number} for number in range(runs)])
        with anyio.fail_after(600 if more_kills else 120):
            await _keep_alive(p, url, name, ledger, backend, more_kills)

        store = KVStore(p, name)
        for number in range(runs):
            found = await store.load(f"run-{number}")
            assert found is not None
            undisturbed = await run_topology(topology_of(number, None))
            assert found[0].status == "completed"
            assert {n: node.output for n, node in found[0].nodes.items()} == {
                n: node.output for n, node in undisturbed.nodes.items()
            }

    assert len(list(ledger.path.parent.glob("died-*"))) == runs
    _check(ledger, runs)


async def _keep_alive(
    p: JobProcessor, url: str, name: str, ledger: Ledger, backend: str, more_kills: bool
) -> None:
    """Keep two workers alive until every job is settled."""
    chance = random.Random(name)
    with ExitStack() as stack:

        def worker() -> subprocess.Popen[bytes]:
            return stack.enter_context(topology_worker(url, name, ledger, backend))

        workers = [worker(), worker()]
        while (await p.js.stream_info(name)).state.messages:
            await anyio.sleep(0.1)
            workers = [worker() if each.poll() is not None else each for each in workers]
            if more_kills and chance.random() < 0.02:
                chance.choice(workers).kill()


def _check(ledger: Ledger, runs: int) -> None:
    for number in range(runs):
        lines = [line for line in ledger.read() if line["n"] == number]
        ended = {line["node"]: line["at"] for line in reversed(lines) if line["what"] == "end"}
        assert set(ended) == set(shape(number))

        starts = [line for line in lines if line["what"] == "start"]
        for start in starts:
            for dep in shape(number)[start["node"]]:
                assert ended[dep] <= start["at"]

        saves = sorted((line for line in lines if line["what"] == "saved"), key=lambda line: line["revision"])
        for one, other in pairwise(saves):
            assert one["revision"] < other["revision"]
            assert one["attempt"] <= other["attempt"]

        # Nobody saves when another one has begun: each attempt is one process, and its saves stand together.
        holders = [key for key, _ in groupby(saves, key=lambda line: (line["attempt"], line["pid"]))]
        assert len({attempt for attempt, _ in holders}) == len(holders)

        # What was completed when another one began does not run again.
        for attempt, its in groupby(saves, key=lambda line: line["attempt"]):
            first = next(its)
            if attempt > 1:
                again = [
                    start["node"]
                    for start in starts
                    if start["pid"] == first["pid"] and start["at"] > first["at"]
                ]
                assert not set(again) & set(first["completed"])


async def test_a_worker_that_is_cut_off_longer_than_its_lease_saves_nothing_more(name: str) -> None:
    reasons: list[Any] = []
    began = anyio.Event()

    async def first(ctx: NodeContext[Any]) -> str:
        return f"first of {ctx.context}"

    async def second(ctx: NodeContext[Any]) -> str:
        if ctx.context == "the other":
            return "of the other"

        began.set()
        try:
            for number in count():
                # There is always a save under way.
                ctx.update_state(number)
                await anyio.sleep(0.01)
        finally:
            reasons.append(ctx.reason)
            ctx.update_state("too late")

        raise AssertionError

    topology = Topology(
        {"first": Node(first), "second": Node(second, deps=["first"]), "third": Node(first, deps=["second"])}
    )

    def worker_of(context: str) -> Any:
        return topology_job(
            topology,
            stream=name,
            store=name,
            context=lambda job: context,
            consumer_config=ConsumerConfig(ack_wait=1.0),
        )

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(run_server())
        proxy = await stack.enter_async_context(fault_proxy(server.url))
        other = await stack.enter_async_context(job_processor(server.url))
        store = KVStore(other, name)
        async with job_processor(proxy.url, reconnect_time_wait=0.1) as cut_off:
            await cut_off.start(worker_of("the one"))
            await other.enqueue(worker_of("the other"), {"topologyId": "run"})
            await began.wait()
            # The first node's output is stored.
            await until(lambda: _is_completed(store, "first"))
            proxy.swallow()
            await until(lambda: reasons)
            assert reasons == [CancelReason.LEASE_LOST]

            handle = await other.start(worker_of("the other"))
            await until_empty(other.js, name)
            found = await store.load("run")
            assert found is not None
            snapshot, revision = found
            assert (snapshot.status, snapshot.attempt) == ("completed", 2)
            assert [node.output for node in snapshot.nodes.values()] == [
                "first of the one",
                "of the other",
                "first of the other",
            ]
            assert snapshot["second"].state != "too late"
            await handle.stop()
            proxy.restore()
            proxy.cut()
            # What it had to say before is said when this is answered.
            await until(lambda: _is_answered(cut_off))
            await cut_off.stop()

        found = await store.load("run")
        assert found is not None
        assert found[1] == revision


async def _is_answered(p: JobProcessor) -> bool:
    try:
        await p.js.account_info()
    except NatsJobsError:
        return False

    return True


async def _is_completed(store: KVStore, name: str) -> bool:
    found = await store.load("run")
    return found is not None and found[0][name].status == "completed"
