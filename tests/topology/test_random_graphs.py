"""Any graph, whatever befalls its runs, comes to the result of a run that nothing befell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import anyio
import pytest
from hypothesis import given, settings, strategies as st

from nats_jobs.topology import (
    Node,
    NodeContext,
    Run,
    Snapshot,
    Topology,
    TopologyFailed,
    dump_snapshot,
    load_snapshot,
    resume_topology,
    start,
)
from nats_jobs.topology._resume import resumed
from nats_jobs.topology._start import start_from

Kind: TypeAlias = Literal["work", "suspension", "branching"]


@dataclass(frozen=True)
class Step:
    """`troubles` is what befalls the node in each run: it fails, the run is stopped, or it is cancelled."""

    type: Kind
    deps: tuple[int, ...]
    join: Literal["all", "any"]
    choice: int
    """Which of its dependents a branching node selects; none of them when there are not so many."""
    troubles: tuple[str, ...]


TROUBLES = st.lists(st.sampled_from(["", "fail", "stop", "cancel"]), max_size=3).map(tuple)


@st.composite
def graphs(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 9))):
        earlier = st.integers(0, number - 1) if number else st.nothing()
        deps = draw(st.lists(earlier, max_size=3, unique=True)) if number else []
        kind: Kind = draw(st.sampled_from(["work", "work", "work", "suspension", "branching"]))
        join: Literal["all", "any"] = draw(st.sampled_from(["all", "any"]))
        steps.append(Step(kind, tuple(deps), join, draw(st.integers(0, 3)), draw(TROUBLES)))

    # A suspension or branching node on which nothing depends is refused.
    below = {dep for step in steps for dep in step.deps}
    return [step if number in below else replace(step, type="work") for number, step in enumerate(steps)]


class Oracle:
    """What comes of a graph that nothing befalls: each node in its turn, with the rules written out once more."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.completed: list[bool] = []
        self.inputs: list[list[Any]] = []
        for number, step in enumerate(steps):
            self.completed.append(self._can_run(number, step))
            gets: list[Any] = []
            for dep in step.deps:
                if self.completed[dep]:
                    passes_on = steps[dep].type != "work"
                    gets += self.inputs[dep] if passes_on else [_output(dep, self.inputs[dep])]

            self.inputs.append(gets if step.deps else ["data"])

    def selected(self, number: int) -> int | None:
        below = [other for other, step in enumerate(self.steps) if number in step.deps]
        choice = self.steps[number].choice
        return below[choice] if choice < len(below) else None

    def _can_run(self, number: int, step: Step) -> bool:
        for dep in step.deps:
            if self.steps[dep].type == "branching" and self.completed[dep] and self.selected(dep) != number:
                return False

        enough = all if step.join == "all" or not step.deps else any
        return enough(self.completed[dep] for dep in step.deps)


def _output(number: int, data: Any) -> Any:
    return [number, len(data), sum(len(str(each)) for each in data)]


class World:
    """One graph, and all runs of it."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.oracle = Oracle(steps)
        self.begun: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.early: list[str] = []
        self.inputs: dict[str, Any] = {}
        self.run: Run
        self.scope: anyio.CancelScope
        self.topology = Topology(
            {
                f"n{number}": Node(
                    self.work, deps=[f"n{dep}" for dep in step.deps], type=step.type, join=step.join
                )
                for number, step in enumerate(steps)
            }
        )

    async def work(self, ctx: NodeContext[Any]) -> Any:
        number = int(ctx.node[1:])
        step = self.steps[number]
        time, self.begun[ctx.node] = self.begun[ctx.node], self.begun[ctx.node] + 1
        above = [dep for dep in step.deps if self.oracle.completed[dep]]
        self.early += [f"{ctx.node} before n{dep}" for dep in above if not self.completed[f"n{dep}"]]
        waited_for = {f"n{dep}" for dep in above if self.steps[dep].type == "suspension"}
        self.early += [f"{ctx.node} without {name}" for name in waited_for - ctx.answers.keys()]
        self.inputs[ctx.node] = list(ctx.data)
        match step.troubles[time] if time < len(step.troubles) else "":
            case "fail":
                raise ValueError(ctx.node)
            case "stop":
                self.run.stop()
            case "cancel":
                self.scope.cancel("for the test")

        await anyio.lowlevel.checkpoint()
        self.completed[ctx.node] += 1
        if step.type == "branching":
            selected = self.oracle.selected(number)
            return ctx.none() if selected is None else ctx.branch(f"n{selected}")

        return _output(number, ctx.data)

    async def once(self, snapshot: Snapshot | None) -> Snapshot:
        """Run until something befalls the run, and return what is stored then."""
        with anyio.CancelScope() as self.scope:
            try:
                if snapshot is None:
                    async with start(self.topology, data="data") as self.run:
                        pass
                else:
                    await self._resume(snapshot)
            except TopologyFailed:
                pass

        return load_snapshot(dump_snapshot(self.run.snapshot))

    async def _resume(self, snapshot: Snapshot) -> None:
        answers = {name: f"answer to {name}" for name in snapshot.suspended[:1]}
        part, begun = resumed(self.topology, snapshot, answers=answers)
        async with start_from(part, begun, data="data") as self.run:
            pass


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(deadline=None, max_examples=150)
@given(steps=graphs())
def test_every_node_completes_once_and_after_its_dependencies_whatever_happens(
    backend: str, steps: list[Step]
) -> None:
    async def live() -> None:
        world = World(steps)
        snapshot = await world.once(None)
        # Each run but the last has a trouble that befalls it, or an answer to give.
        for _ in range(sum(len(step.troubles) + 1 for step in steps)):
            if snapshot.status == "completed":
                break

            snapshot = await world.once(snapshot)

        assert snapshot.status == "completed"
        expected = [number for number in range(len(steps)) if world.oracle.completed[number]]
        assert world.completed == Counter(f"n{number}" for number in expected)
        assert set(snapshot.names("skipped")) == world.topology.nodes.keys() - world.completed.keys()
        assert not world.early
        assert world.inputs == {f"n{number}": world.oracle.inputs[number] for number in expected}
        assert await resume_topology(world.topology, snapshot) is snapshot

    anyio.run(live, backend=backend)
