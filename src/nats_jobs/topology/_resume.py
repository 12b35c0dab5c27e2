"""What a snapshot means for the graph of today: which results are kept, and how the two differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ._errors import GraphChanged, TopologyError
from ._snapshot import NodeState, Snapshot
from ._topology import Topology

__all__ = ("first_snapshot", "resumed")


def first_snapshot(topology: Topology, id: str | None) -> Snapshot:
    """Return the snapshot of a run that has not begun."""
    return Snapshot(
        status="running",
        nodes={name: _fresh(topology, name) for name in topology.nodes},
        id=id,
        name=topology.name,
        digest=topology.digest,
        started=datetime.now(UTC),
    )


def resumed(
    topology: Topology,
    snapshot: Snapshot,
    *,
    answers: Mapping[str, Any] | None = None,
    resume_from: str | None = None,
    allow_changed: bool = False,
) -> tuple[Topology, Snapshot]:
    """Return the part of the topology that the snapshot is of, and the snapshot to go on from.

    Raises:
        GraphChanged: the graph is another one, and that is not allowed.
        TopologyError: no snapshot, an answer that nobody waits for, a node that does not exist.
    """
    if not isinstance(snapshot, Snapshot):
        raise TopologyError(f"snapshot is {snapshot!r}; a Snapshot is needed")

    if answers:
        snapshot = snapshot.answered(answers)

    if resume_from is not None:
        snapshot = replace(
            snapshot.fork(snapshot.id, resume_from=resume_from),
            attempt=snapshot.attempt,
            extra=snapshot.extra,
            revision=snapshot.revision,
        )

    part = _part(topology, snapshot)
    differences = tuple(_differences(topology, part, snapshot))
    if differences and not allow_changed:
        raise GraphChanged(differences)

    if differences:
        part, snapshot = topology, replace(snapshot, nodes=dict(_carried_over(topology, snapshot)))

    return part, _begun_again(topology, snapshot)


def _part(topology: Topology, snapshot: Snapshot) -> Topology:
    known = [name for name in snapshot.nodes if name in topology.nodes]
    return topology.subset(include=known) if 0 < len(known) < len(topology.nodes) else topology


def _differences(topology: Topology, part: Topology, snapshot: Snapshot) -> Iterator[str]:
    for name, state in snapshot.nodes.items():
        node = topology.nodes.get(name)
        if node is None:
            yield f"node {name!r} is missing"
            continue

        if node.type != state.type:
            yield f"node {name!r} was of type {state.type!r} and is of type {node.type!r}"

        today = tuple(part.nodes[name].deps) if name in part.nodes else tuple(node.deps)
        if today != state.deps:
            yield f"node {name!r} depended on {_listed(state.deps)} and depends on {_listed(today)}"

    # A snapshot of a subset has the digest of the whole: without a change the other nodes were left out.
    if snapshot.digest not in (None, topology.digest):
        for name in topology.nodes.keys() - snapshot.nodes.keys():
            yield f"node {name!r} is new"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"


def _carried_over(topology: Topology, snapshot: Snapshot) -> Iterator[tuple[str, NodeState]]:
    for name, node in topology.nodes.items():
        state = snapshot.nodes.get(name)
        same = state is not None and (state.type, state.deps) == (node.type, tuple(node.deps))
        yield name, state if state is not None and same else _fresh(topology, name)


def _begun_again(topology: Topology, snapshot: Snapshot) -> Snapshot:
    kept = ("completed", "skipped")
    nodes = {
        name: state if state.status in kept or state.status == "suspended" else state.reset()
        for name, state in snapshot.nodes.items()
    }
    return replace(
        snapshot,
        nodes=nodes,
        status="running",
        name=topology.name,
        digest=topology.digest,
        attempt=snapshot.attempt + 1,
        started=datetime.now(UTC),
        finished=None,
        cancelled=None,
    )


def _fresh(topology: Topology, name: str) -> NodeState:
    node = topology.nodes[name]
    return NodeState(type=node.type, deps=tuple(node.deps))
