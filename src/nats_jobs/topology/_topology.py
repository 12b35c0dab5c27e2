"""A graph of nodes, refused when built if it could not work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack, cast

from ._drawing import mermaid, text
from ._errors import TopologyError
from ._graph_rules import check_graph, dependents_of, flattened
from ._node import Node, check_token
from ._unset import UNSET

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from ._run import Run
    from ._snapshot import Snapshot
    from ._start import StartOptions

__all__ = ("Topology", "shape_digest")


class Topology:
    """A directed acyclic graph of named nodes. It never changes.

    Args:
        nodes: by name, or nodes that `@node` made, which are named after their functions.
        name: of the whole; a token.

    Raises:
        TopologyError: an unknown dependency, a cycle, a name that is used twice or is not valid, a branching or
            suspension node on which nothing depends. The text names the node.
    """

    def __init__(self, nodes: Mapping[str, Node] | Iterable[Node], *, name: str = "topology") -> None:
        self.name = check_token("topology name", name)
        self.nodes: Mapping[str, Node] = flattened(_by_name(nodes), Topology)
        self._whole: str | None = None
        check_graph(self.nodes)

    @cached_property
    def dependents(self) -> Mapping[str, tuple[str, ...]]:
        """The nodes that depend directly on each node."""
        return dependents_of({name: node.deps for name, node in self.nodes.items()})

    @cached_property
    def digest(self) -> str:
        """What stands for the names, types and dependencies. A subset has that of the whole."""
        return self._whole or shape_digest(
            {n: (node.type, tuple(node.deps)) for n, node in self.nodes.items()}
        )

    def subset(
        self, *, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> Topology:
        """Return the topology of some of the nodes; dependencies on the others are cut.

        Args:
            include: keep only these.
            exclude: keep all but these; wins when both are given.

        Raises:
            TopologyError: a name that does not exist, or nothing is left.
        """
        if include is None and exclude is None:
            return self

        kept = self._kept(include, exclude)
        part = Topology.__new__(Topology)
        part.name = self.name
        part.nodes = {name: _cut(node, kept) for name, node in self.nodes.items() if name in kept}
        part._whole = self.digest
        return part

    def _kept(self, include: Iterable[str] | None, exclude: Iterable[str] | None) -> set[str]:
        named = set(include or ()) if exclude is None else set(exclude)
        if unknown := sorted(named - self.nodes.keys()):
            raise TopologyError(
                f"subset of {self.name!r}: there are no nodes {', '.join(map(repr, unknown))}"
            )

        kept = named if exclude is None else self.nodes.keys() - named
        if not kept:
            raise TopologyError(f"subset of {self.name!r}: no node is left")

        return set(kept)

    def start(self, data: Any = UNSET, **options: Unpack[StartOptions]) -> AbstractAsyncContextManager[Run]:
        """Run it while the block runs: `async with topology.start(…) as run: async for snapshot in run`.

        See `nats_jobs.topology.start`.
        """
        # What runs topologies knows them already.
        from ._start import start

        return start(self, data, **options)

    def to_mermaid(self, snapshot: Snapshot | None = None) -> str:
        """Return a Mermaid flowchart; with a snapshot every node has its status and duration."""
        return mermaid(self.nodes, snapshot)

    def to_text(self, snapshot: Snapshot | None = None) -> str:
        """Return one line for each node, in the order in which they can run."""
        return text(self.nodes, snapshot)

    def __repr__(self) -> str:
        return f"Topology({self.name!r}, {len(self.nodes)} nodes)"


def shape_digest(shape: Mapping[str, tuple[str, tuple[str, ...]]]) -> str:
    """Return a digest of the names, types and dependencies of nodes, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(shape.items())).encode()).hexdigest()[:16]


def _by_name(nodes: Mapping[str, Node] | Iterable[Node]) -> dict[str, Node]:
    if isinstance(nodes, Mapping):
        return dict(cast("Mapping[str, Node]", nodes))

    named: dict[str, Node] = {}
    for each in nodes:
        name = getattr(each.run, "__name__", None)
        if name is None:
            raise TopologyError(f"{each!r} has no name of its own; give the nodes as a mapping")

        if name in named:
            raise TopologyError(f"two nodes have the name {name!r}")

        named[name] = each

    return named


def _cut(node: Node, kept: set[str]) -> Node:
    deps = tuple(dep for dep in node.deps if dep in kept)
    return node if deps == node.deps else replace(node, deps=deps)
