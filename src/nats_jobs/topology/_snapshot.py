"""What is known about a run at one moment. Frozen: a snapshot taken early never changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from ._drawing import mermaid, nodes_of, text
from ._errors import TopologyError
from ._graph_rules import all_below, dependents_of
from ._node import Kind
from ._unset import UNSET, Unset

__all__ = ("ItemState", "NodeState", "RunStatus", "Snapshot", "Status", "is_open")

Status: TypeAlias = Literal["pending", "running", "completed", "errored", "suspended", "skipped"]
RunStatus: TypeAlias = Literal["pending", "running", "completed", "errored", "suspended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemState:
    """One item of a node with `map`."""

    status: Status = "pending"
    output: Any = UNSET
    state: Any = UNSET
    error: Any = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One node: what it was given, what came of it."""

    type: Kind
    deps: tuple[str, ...]
    status: Status = "pending"
    started: datetime | None = None
    finished: datetime | None = None
    input: tuple[Any, ...] | Unset = UNSET
    """What the dependencies gave, in their order."""
    output: Any = UNSET
    """What it returned; of a suspension, its answer."""
    state: Any = UNSET
    """What it last passed to `update_state`."""
    error: Any = UNSET
    selected: str | Unset | None = UNSET
    """The dependent that a branching node selected; None for none of them."""
    reason: str | None = None
    """Why a branching node selected what it did."""
    items: tuple[ItemState, ...] | None = None
    """The items of a node with `map`."""

    def reset(self) -> NodeState:
        """Return it as it is before another try: its input and state are kept."""
        items = self.items and tuple(
            item if item.status == "completed" else ItemState(state=item.state) for item in self.items
        )
        return NodeState(
            type=self.type, deps=self.deps, input=self.input, state=self.state, items=items or None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A whole run at one moment."""

    status: RunStatus
    nodes: Mapping[str, NodeState]
    id: str | None = None
    name: str = "topology"
    digest: str | None = None
    """Of the graph that it was made with; None when the Node library made it."""
    attempt: int = 1
    """Counts the runs: 1, and one more with each resume."""
    started: datetime | None = None
    finished: datetime | None = None
    cancelled: str | None = None
    """Why the run was cancelled for good: no job goes on with it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the stored form that are others': kept as they are."""
    revision: int | None = field(default=None, compare=False)
    """Of the store that it was loaded from; it is not part of the stored form."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))

    def __getitem__(self, name: str) -> NodeState:
        return self.nodes[name]

    def names(self, status: Status) -> list[str]:
        """Return the names of the nodes with this status."""
        return [name for name, node in self.nodes.items() if node.status == status]

    @property
    def suspended(self) -> list[str]:
        """The suspension nodes that wait for an answer."""
        waiting = {dep for node in self.nodes.values() if node.status == "suspended" for dep in node.deps}
        return [name for name, node in self.nodes.items() if name in waiting and is_open(node)]

    def to_mermaid(self) -> str:
        """Return a Mermaid flowchart as `Topology.to_mermaid`, of the graph as it was."""
        return mermaid(nodes_of(self), self)

    def to_text(self) -> str:
        """Return lines as `Topology.to_text`, of the graph as it was.

        Raises:
            TopologyError: a cycle.
        """
        return text(nodes_of(self), self)

    def answered(self, answers: Mapping[str, Any]) -> Snapshot:
        """Return the snapshot with answers to suspensions, by the node's name; one that is there already is kept.

        Raises:
            TopologyError: a node that does not wait for an answer, or has another one.
        """
        answers = {name: value for name, value in answers.items() if not self._has_answer(name, value)}
        waiting = self.suspended
        for name in answers:
            if name not in waiting:
                raise TopologyError(
                    f"node {name!r} does not wait for an answer; those that do: {', '.join(waiting) or 'none'}"
                )

        if not answers:
            return self

        nodes = dict(self.nodes) | {name: replace(self.nodes[name], output=answers[name]) for name in answers}
        return replace(self, status="running", finished=None, nodes=nodes)

    def _has_answer(self, name: str, value: Any) -> bool:
        node = self.nodes.get(name)
        return node is not None and node.type == "suspension" and node.output == value

    def cancel(self, reason: str) -> Snapshot:
        """Return the snapshot of a run that is not to go on: `errored`, with `cancelled`.

        Raises:
            TopologyError: it is completed.
        """
        if self.status == "completed":
            raise TopologyError(f"run {self.id!r} is completed; there is nothing to cancel")

        settled = ("completed", "skipped", "errored")
        nodes = {n: node if node.status in settled else node.reset() for n, node in self.nodes.items()}
        return replace(self, status="errored", finished=datetime.now(UTC), nodes=nodes, cancelled=reason)

    def fork(self, id: str | None = None, *, resume_from: str | None = None) -> Snapshot:
        """Return a snapshot for another run that begins where this one is.

        Args:
            id: of the new run.
            resume_from: this node and all below it are to run again; answers given there are dropped.

        Raises:
            TopologyError: no such node.
        """
        nodes = dict(self.nodes)
        if resume_from is not None:
            for name in self._from(resume_from):
                nodes[name] = NodeState(type=nodes[name].type, deps=nodes[name].deps)

        status = self.status if resume_from is None else "running"
        return replace(
            self, id=id, nodes=nodes, status=status, attempt=1, cancelled=None, extra={}, revision=None
        )

    def _from(self, top: str) -> set[str]:
        if top not in self.nodes:
            raise TopologyError(f"resume_from is {top!r}, which does not exist")

        return {top} | all_below(top, dependents_of({name: node.deps for name, node in self.nodes.items()}))


def is_open(node: NodeState) -> bool:
    """Whether it is a suspension without an answer."""
    return node.type == "suspension" and node.status == "completed" and node.output is UNSET
