"""`nats-jobs topology`, as a shell sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from nats_jobs import job_processor
from nats_jobs.cli import main
from nats_jobs.topology import KVStore, Node, NodeContext, Topology, load_snapshot, run_topology, topology_job
from support.jobs import until_empty
from support.topologies import authorisation

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(url: str, name: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(action: str, *arguments: str) -> tuple[int, str, str]:
        code = main(["topology", action, "--server", url, "--bucket", name, *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_a_run_that_waits_is_listed_shown_and_answered(url: str, name: str, run: Run) -> None:
    mails: list[Any] = []
    defn = topology_job(authorisation(mails), stream=name, store=name)

    async def work(payload: dict[str, Any] | None) -> None:
        async with job_processor(url) as p:
            await p.start(defn)
            if payload:
                await p.enqueue(defn, payload)

            await until_empty(p.js, name)
            await p.stop()

    assert run("ls") == (0, "No runs.\n", "")
    anyio.run(work, {"topologyId": "order-1", "data": "x"})
    waits = "order-1  authorisation  suspended  4 of 5 nodes, attempt 1  waits for authorization\n"
    assert run("ls") == (0, waits, "")

    code, shown, _ = run("show", "order-1")
    assert code == 0
    assert [line.split()[:2] for line in shown.splitlines()] == [
        ["input", "completed"],
        ["lookupA", "completed"],
        ["lookupB", "completed"],
        ["authorization", "completed"],
        ["email", "suspended"],
    ]
    assert run("show", "order-1", "--mermaid")[1].startswith("flowchart TD\n")
    assert load_snapshot(run("show", "order-1", "--json")[1]).suspended == ["authorization"]

    code, _, error = run("resume", "order-1", "--stream", name, "--answer", "email=1")
    assert (code, error) == (
        1,
        "nats-jobs: node 'email' does not wait for an answer; those that do: authorization\n",
    )
    code, out, _ = run("resume", "order-1", "--stream", name, "--answer", 'authorization={"by": "me"}')
    assert code == 0
    assert out.startswith("Enqueued: job ")
    anyio.run(work, None)
    assert [answer for _, answer in mails] == [{"by": "me"}]
    (line,) = run("ls", "--json")[1].splitlines()
    assert json.loads(line)["status"] == "completed"


def test_a_run_is_cancelled_with_a_reason(url: str, name: str, run: Run) -> None:
    async def begin() -> None:
        async with job_processor(url) as p:
            await run_topology(authorisation([]), data="x", store=KVStore(p, name), id="order-1")

    anyio.run(begin)
    assert run("cancel", "order-1", "--reason", "not in stock") == (0, "Cancelled: run order-1.\n", "")
    line = "order-1  authorisation  errored  4 of 5 nodes, attempt 1  cancelled: not in stock\n"
    assert run("ls") == (0, line, "")
    code, _, error = run("resume", "order-1", "--stream", name)
    assert (code, error) == (1, "nats-jobs: run 'order-1' was cancelled: not in stock\n")


def test_a_run_that_does_not_exist_is_an_error(run: Run) -> None:
    code, out, error = run("show", "nothing")
    assert (code, out) == (1, "")
    assert "there is no run 'nothing'" in error


def test_a_thousand_nodes_are_shown(url: str, name: str, run: Run) -> None:
    async def work(ctx: NodeContext[Any]) -> None: ...

    nodes = {f"n{number}": Node(work, deps=[f"n{number - 1}"] if number else []) for number in range(1000)}

    async def store() -> None:
        async with job_processor(url) as p:
            await run_topology(Topology(nodes), store=KVStore(p, name), id="long", debounce=0.05)

    anyio.run(store)
    lines = run("show", "long")[1].splitlines()
    assert [line.split()[0] for line in lines] == list(nodes)
