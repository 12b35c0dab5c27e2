"""What a graph may be: every refusal names its nodes. And sub-graphs, made part of the graph around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from ._errors import TopologyError
from ._node import Node, check_token

if TYPE_CHECKING:
    from ._topology import Topology

__all__ = ("all_below", "check_graph", "dependents_of", "flattened", "in_order")


def check_graph(nodes: Mapping[str, Node]) -> None:
    """Refuse a graph that could not come to an end.

    Raises:
        TopologyError: see `Topology`.
    """
    if not nodes:
        raise TopologyError("a topology needs at least one node")

    needed: set[str] = set()
    for name, node in nodes.items():
        check_token("node name", name)
        _check_deps(name, node, nodes)
        needed.update(node.deps)

    for name, node in nodes.items():
        if node.type != "work" and name not in needed:
            raise TopologyError(f"no node depends on {name!r}, which is of type {node.type!r}")

    in_order(nodes)


def in_order(nodes: Mapping[str, Node]) -> list[str]:
    """Return the names, dependencies first.

    Raises:
        TopologyError: a cycle.
    """
    try:
        return list(TopologicalSorter({name: node.deps for name, node in nodes.items()}).static_order())
    except CycleError as error:
        # Each depends on the one before it.
        raise TopologyError(f"a cycle: {' -> '.join(error.args[1])}") from None


def dependents_of(deps: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Return the names that depend directly on each name."""
    found: dict[str, list[str]] = {name: [] for name in deps}
    for name, its in deps.items():
        for dep in its:
            found[dep].append(name)

    return {name: tuple(below) for name, below in found.items()}


def all_below(name: str, dependents: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the names that depend on `name`, directly or not."""
    found: set[str] = set()
    left = [name]
    while left:
        new = set(dependents[left.pop()]) - found
        found |= new
        left += new

    return found


def _check_deps(name: str, node: Node, nodes: Mapping[str, Node]) -> None:
    deps = tuple(node.deps)
    for dep in deps:
        if dep not in nodes:
            raise TopologyError(f"node {name!r} depends on {dep!r}, which does not exist")

    if len(set(deps)) != len(deps):
        twice = next(dep for dep in deps if deps.count(dep) > 1)
        raise TopologyError(f"node {name!r} depends twice on {twice!r}")


def flattened(nodes: Mapping[str, Node], kind: type[Topology]) -> dict[str, Node]:
    """Put the nodes of sub-graphs, with the prefix `<name>.`, beside the others.

    The first nodes of a sub-graph depend on what its node depends on. The node itself comes after the last
    ones, and its output is theirs.
    """
    flat: dict[str, Node] = {}
    for name, node in nodes.items():
        if not isinstance(node, Node):
            raise TopologyError(f"node {name!r} is {node!r}; build a Node")

        for each, its in (_expanded(name, node) if isinstance(node.run, kind) else {name: node}).items():
            if each in flat:
                raise TopologyError(f"two nodes have the name {each!r}")

            flat[each] = its

    return flat


def _expanded(name: str, outer: Node) -> dict[str, Node]:
    inner: Any = outer.run
    if outer.type != "work" or outer.timeout or outer.retries or outer.map:
        raise TopologyError(f"node {name!r} is a sub-graph: it has deps and join; the rest is for its nodes")

    ends = [f"{name}.{each}" for each in inner.nodes if not inner.dependents[each]]
    flat: dict[str, Node] = {}
    for each, node in inner.nodes.items():
        if node.deps:
            flat[f"{name}.{each}"] = replace(node, deps=[f"{name}.{dep}" for dep in node.deps])
        else:
            flat[f"{name}.{each}"] = replace(node, deps=outer.deps, join=outer.join)

    flat[name] = Node(_gather, deps=ends, join="any")
    return flat


async def _gather(ctx: Any) -> Any:
    return ctx.data[0] if len(ctx.data) == 1 else list(ctx.data)
