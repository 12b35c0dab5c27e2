"""What is stored of a run can be read again, whatever its nodes have returned, or is refused when it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nats_jobs.topology import (
    FileStore,
    NodeState,
    Snapshot,
    SnapshotTooLarge,
    TopologyError,
    _file_store as file_store,
    dump_snapshot,
    load_snapshot,
)

pytestmark = pytest.mark.anyio

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


def snapshot(output: Any) -> Snapshot:
    return Snapshot(
        status="completed",
        id="a",
        nodes={
            "small": NodeState(type="work", deps=(), status="completed", output=1),
            "own": NodeState(type="work", deps=("small",), status="completed", input=(1,), output=output),
        },
    )


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]

    return value


@given(VALUES, st.integers(1, 400))
def test_what_can_be_stored_can_be_read(value: Any, depth: int) -> None:
    for output in (value, [value, *nested(depth)]):
        before = snapshot(output)
        try:
            data = dump_snapshot(before)
        except TopologyError:
            continue

        assert load_snapshot(data) == before


@pytest.mark.parametrize("depth", [300, 100_000])
def test_what_is_nested_too_deep_is_refused_with_the_name_of_its_node(depth: int) -> None:
    with pytest.raises(TopologyError, match="'own' has an input, output or state that JSON cannot carry"):
        dump_snapshot(snapshot(nested(depth)))


async def test_what_is_nested_deep_comes_back_from_a_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    await store.save("a", snapshot(nested(200)), None)
    found = await store.load("a")
    assert found is not None
    assert found[0].nodes["own"].output == nested(200)


async def test_a_file_that_could_not_be_read_again_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_store, "_MAX_BYTES", 2000)
    store = FileStore(tmp_path)
    with pytest.raises(SnapshotTooLarge, match="node 'own' is the largest"):
        await store.save("a", snapshot("x" * 1900), None)

    assert await store.load("a") is None
    await store.save("a", snapshot("x" * 1000), None)
    assert await store.load("a") is not None
