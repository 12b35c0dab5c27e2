"""A graph as text: a Mermaid flowchart, and one line for each node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ._graph_rules import in_order
from ._node import Node

if TYPE_CHECKING:
    from ._snapshot import NodeState, Snapshot

__all__ = ("mermaid", "nodes_of", "text")

_SHAPES = {"work": ("[", "]"), "branching": ("{", "}"), "suspension": ("([", "])")}
_COLOURS = {
    "pending": "#eeeeee",
    "running": "#cce5ff",
    "completed": "#d4edda",
    "errored": "#f8d7da",
    "suspended": "#fff3cd",
    "skipped": "#ffffff",
}


def nodes_of(snapshot: Snapshot) -> dict[str, Node]:
    """Return nodes that can be drawn, of a graph whose functions are not here."""
    return {
        name: Node(_nothing, deps=state.deps, type=state.type, map=state.items is not None)
        for name, state in snapshot.nodes.items()
    }


def _nothing(_: object) -> None: ...


def mermaid(nodes: Mapping[str, Node], snapshot: Snapshot | None) -> str:
    """Return a flowchart; numbers stand for the nodes, because some names are words of Mermaid's."""
    ids = {name: f"n{number}" for number, name in enumerate(nodes)}
    lines = ["flowchart TD"]
    for name, node in nodes.items():
        before, after = _SHAPES[node.type]
        status = f":::{snapshot[name].status}" if snapshot else ""
        lines.append(f'    {ids[name]}{before}"{_label(name, node, snapshot)}"{after}{status}')

    for name, node in nodes.items():
        arrow = "-.->" if node.join == "any" else "-->"
        lines.extend(f"    {ids[dep]} {arrow} {ids[name]}" for dep in node.deps)

    if snapshot:
        lines.extend(f"    classDef {status} fill:{colour}" for status, colour in _COLOURS.items())

    return "\n".join(lines) + "\n"


def text(nodes: Mapping[str, Node], snapshot: Snapshot | None) -> str:
    """Return a line for each node, dependencies first."""
    width = max(map(len, nodes))
    return "\n".join(_row(name, nodes[name], snapshot, width) for name in in_order(nodes)) + "\n"


def _row(name: str, node: Node, snapshot: Snapshot | None, width: int) -> str:
    parts = [name.ljust(width)]
    if snapshot:
        parts += [snapshot[name].status.ljust(9), duration(snapshot[name]).rjust(8)]

    if node.deps:
        parts.append(f"<- {', '.join(node.deps)}")

    return "  ".join(parts).rstrip()


def _label(name: str, node: Node, snapshot: Snapshot | None) -> str:
    return "<br/>".join([name, *_remarks(node, snapshot[name] if snapshot else None)])


def _remarks(node: Node, state: NodeState | None) -> Iterator[str]:
    if node.join == "any":
        yield "any"

    if node.map:
        yield "for each item"

    if state and (took := duration(state)):
        yield took


def duration(state: NodeState) -> str:
    """How long a node took; empty when it has not come to an end."""
    if state.started is None or state.finished is None:
        return ""

    return f"{(state.finished - state.started).total_seconds():.3g} s"
