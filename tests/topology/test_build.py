"""A graph that could not work is refused when built, and the text names the node."""

from __future__ import annotations

from typing import Any

import pytest

from nats_jobs.topology import Node, NodeContext, Topology, TopologyError, node


async def nothing(ctx: NodeContext[Any]) -> None:
    pass


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ({}, "at least one node"),
        ({"a": Node(nothing, deps=["b"])}, "node 'a' depends on 'b', which does not exist"),
        ({"a": Node(nothing), "b": Node(nothing, deps=["a", "a"])}, "node 'b' depends twice on 'a'"),
        ({"a": Node(nothing, type="branching")}, "no node depends on 'a'"),
        ({"a": Node(type="suspension")}, "no node depends on 'a'"),
        ({"a b": Node(nothing)}, "node name 'a b' is not a valid name"),
        ({"a": Node(nothing, deps=["a"])}, "a cycle: a -> a"),
    ],
)
def test_a_bad_graph_is_refused_by_name(nodes: Any, text: str) -> None:
    with pytest.raises(TopologyError) as caught:
        Topology(nodes)

    assert text in str(caught.value)


def test_a_cycle_is_named_in_order() -> None:
    with pytest.raises(TopologyError, match=r"a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c"):
        Topology(
            {"a": Node(nothing, deps=["c"]), "b": Node(nothing, deps=["a"]), "c": Node(nothing, deps=["b"])}
        )


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"type": "wrok"}, "type"),
        ({"timeout": 0}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"backoff": -1.0}, "backoff"),
        ({"join": "some"}, "join"),
        ({"map": True, "type": "branching"}, "map"),
        ({"deps": "abc"}, "deps"),
        ({"run_in": "somewhere"}, "run_in"),
        ({"run_in": "process"}, "a plain def"),
    ],
)
def test_a_bad_field_is_refused_by_name(options: Any, field: str) -> None:
    with pytest.raises(TopologyError, match=field):
        Node(nothing, **options)


def test_only_a_suspension_may_have_nothing_to_run() -> None:
    with pytest.raises(TopologyError, match="needs something to run"):
        Node()


def test_a_decorated_function_names_its_node_and_two_of_one_name_are_refused() -> None:
    @node()
    async def fetch(ctx: NodeContext[Any]) -> None: ...

    @node(deps=["fetch"])
    async def parse(ctx: NodeContext[Any]) -> None: ...

    assert list(Topology([fetch, parse]).nodes) == ["fetch", "parse"]
    with pytest.raises(TopologyError, match="two nodes have the name 'fetch'"):
        Topology([fetch, fetch])


CHAIN = Topology(
    {
        "a": Node(nothing),
        "b": Node(nothing),
        "c": Node(nothing, deps=["a", "b"]),
        "d": Node(nothing, deps=["c"]),
    }
)


def shape(topology: Topology) -> dict[str, list[str]]:
    return {name: list(each.deps) for name, each in topology.nodes.items()}


def test_an_excluded_start_node_vanishes_from_the_dependencies() -> None:
    assert shape(CHAIN.subset(exclude=["a"])) == {"b": [], "c": ["b"], "d": ["c"]}


def test_what_is_included_keeps_only_its_own_dependencies() -> None:
    assert shape(CHAIN.subset(include=["a", "d"])) == {"a": [], "d": []}


def test_exclusion_wins_and_no_option_leaves_the_graph_alone() -> None:
    assert shape(CHAIN.subset(include=["a"], exclude=["a"])) == {"b": [], "c": ["b"], "d": ["c"]}
    assert CHAIN.subset() is CHAIN


def test_a_subset_of_unknown_nodes_or_of_none_is_refused() -> None:
    with pytest.raises(TopologyError, match="there are no nodes 'x'"):
        CHAIN.subset(include=["x"])

    with pytest.raises(TopologyError, match="no node is left"):
        CHAIN.subset(exclude=["a", "b", "c", "d"])


def test_the_nodes_of_a_sub_graph_stand_beside_the_others_with_a_prefix() -> None:
    inner = Topology({"x": Node(nothing), "y": Node(nothing, deps=["x"])})
    outer = Topology({"a": Node(nothing), "in": Node(inner, deps=["a"]), "z": Node(nothing, deps=["in"])})
    assert shape(outer) == {"a": [], "in.x": ["a"], "in.y": ["in.x"], "in": ["in.y"], "z": ["in"]}


def test_the_digest_stands_for_names_types_and_dependencies_only() -> None:
    one = Topology({"a": Node(nothing), "b": Node(nothing, deps=["a"], retries=3)})
    same = Topology({"b": Node(nothing, deps=["a"]), "a": Node(nothing)})
    other = Topology({"a": Node(nothing), "b": Node(nothing)})
    assert one.digest == same.digest != other.digest
