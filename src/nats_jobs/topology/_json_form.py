"""The stored form of a snapshot: that of the Node library, with fields of ours beside its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

from .._untrusted import field_of, is_too_deep, parse_json
from ..errors import Malformed
from ._errors import SnapshotTooLarge, TopologyError
from ._node import KINDS
from ._snapshot import ItemState, NodeState, RunStatus, Snapshot, Status
from ._unset import UNSET

__all__ = ("MAX_DEPTH", "check_size", "dump_snapshot", "load_snapshot", "snapshot_of")

# What users nest, and the levels around it; one limit for what is stored and what is read, or it could not be read again.
MAX_DEPTH = 256

_NONE = "Symbol(NONE)"
_OWN = ("status", "started", "finished", "data", "id", "name", "digest", "attempt", "cancelled")
_WHAT = "snapshot"
_VALUES = ("output", "state", "error")


def dump_snapshot(snapshot: Snapshot) -> bytes:
    """Return the stored form.

    Raises:
        TopologyError: a value that JSON cannot carry, or that is nested about 250 deep. The text names the node.
    """
    try:
        return _dumped(_fields(snapshot))
    except (TypeError, ValueError, RecursionError):
        raise _naming_the_node(snapshot) from None


def check_size(snapshot: Snapshot, data: bytes, limit: int) -> None:
    """Raise `SnapshotTooLarge` when its stored form, `data`, is longer than `limit`."""
    if len(data) > limit:
        # The input of a node is what others brought.
        own = {name: replace(state, input=UNSET) for name, state in snapshot.nodes.items()}
        sizes = {name: len(_dumped(_node_fields(state))) for name, state in own.items()}
        raise SnapshotTooLarge(max(sizes, key=sizes.__getitem__), len(data), limit)


def load_snapshot(data: bytes | str, *, max_bytes: int = 64 * 1024 * 1024) -> Snapshot:
    """Read the stored form, ours or the Node library's.

    Raises:
        Malformed: it is neither.
    """
    return snapshot_of(parse_json(data, _WHAT, max_bytes=max_bytes, max_depth=MAX_DEPTH))


def snapshot_of(fields: Any) -> Snapshot:
    """Return what was read from the stored form, as JSON. Raises as `load_snapshot`."""
    nodes = field_of(fields, "data", dict, _WHAT)
    loaded = {name: _node(state, f"node {name[:80]!r} of a snapshot") for name, state in nodes.items()}
    for name, state in loaded.items():
        if unknown := [dep for dep in state.deps if dep not in loaded]:
            raise Malformed(
                _WHAT, f"node {name[:80]!r} depends on {unknown[0][:80]!r}, which it does not have"
            )

    return Snapshot(
        status=_one_of(get_args(RunStatus), fields, "status", _WHAT),
        nodes=loaded,
        id=_optional(fields, "id", str, _WHAT),
        name=field_of(fields, "name", str, _WHAT, "topology"),
        digest=_optional(fields, "digest", str, _WHAT),
        attempt=field_of(fields, "attempt", int, _WHAT, 1),
        started=_time(fields, "started", _WHAT),
        finished=_time(fields, "finished", _WHAT),
        cancelled=_optional(fields, "cancelled", str, _WHAT),
        extra={name: value for name, value in fields.items() if name not in _OWN},
    )


def _fields(snapshot: Snapshot) -> dict[str, Any]:
    fields: dict[str, Any] = dict(snapshot.extra)
    fields |= {"status": snapshot.status, "name": snapshot.name, "attempt": snapshot.attempt}
    fields |= _known(id=snapshot.id, digest=snapshot.digest, cancelled=snapshot.cancelled)
    fields |= _known(started=_text(snapshot.started), finished=_text(snapshot.finished))
    fields["data"] = {name: _node_fields(state) for name, state in snapshot.nodes.items()}
    return fields


def _node_fields(state: NodeState) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": state.type, "deps": list(state.deps), "status": state.status}
    fields |= _known(started=_text(state.started), finished=_text(state.finished), reason=state.reason)
    fields |= _values(state)
    if state.input is not UNSET:
        fields["input"] = list(state.input)

    if state.selected is not UNSET:
        fields["selected"] = _NONE if state.selected is None else state.selected

    if state.items is not None:
        fields["items"] = [{"status": item.status} | _values(item) for item in state.items]

    return fields


def _values(state: NodeState | ItemState) -> dict[str, Any]:
    return {name: value for name in _VALUES if (value := getattr(state, name)) is not UNSET}


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _dumped(fields: Mapping[str, Any]) -> bytes:
    data = json.dumps(fields, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    if is_too_deep(data, fields, MAX_DEPTH):
        raise ValueError("it is nested too deep")

    return data


def _naming_the_node(snapshot: Snapshot) -> TopologyError:
    for name, state in snapshot.nodes.items():
        try:
            _dumped(_node_fields(state))
        except (TypeError, ValueError, RecursionError) as error:
            return TopologyError(
                f"node {name!r} has an input, output or state that JSON cannot carry: {error}"
            )

    return TopologyError(
        f"the snapshot has fields that JSON cannot carry, or values nested about {MAX_DEPTH} deep"
    )


def _text(time: datetime | None) -> str | None:
    return (
        None
        if time is None
        else f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    )


def _node(fields: Any, what: str) -> NodeState:
    deps = field_of(fields, "deps", list, what)
    if not all(isinstance(dep, str) for dep in deps):
        raise Malformed(what, "'deps' has something that is not a text")

    given = _optional(fields, "input", list, what)
    items = _optional(fields, "items", list, what)
    return NodeState(
        type=_one_of(KINDS, fields, "type", what),
        deps=tuple(deps),
        status=_one_of(get_args(Status), fields, "status", what),
        started=_time(fields, "started", what),
        finished=_time(fields, "finished", what),
        input=UNSET if given is None else tuple(given),
        output=fields.get("output", UNSET),
        state=fields.get("state", UNSET),
        error=fields.get("error", UNSET),
        selected=_selected(fields, what),
        reason=_optional(fields, "reason", str, what),
        items=None if items is None else tuple(_item(item, what) for item in items),
    )


def _item(fields: Any, what: str) -> ItemState:
    status = _one_of(get_args(Status), fields, "status", what)
    return ItemState(status=status, **{name: fields[name] for name in _VALUES if name in fields})


def _selected(fields: dict[str, Any], what: str) -> Any:
    selected = _optional(fields, "selected", str, what)
    if selected is None:
        return UNSET

    return None if selected == _NONE else selected


def _optional(fields: Any, name: str, kind: type[Any], what: str) -> Any:
    return None if fields.get(name) is None else field_of(fields, name, kind, what)


def _one_of(known: tuple[Any, ...], fields: Any, name: str, what: str) -> Any:
    text = field_of(fields, name, str, what)
    if text not in known:
        raise Malformed(what, f"{name!r} is {text[:80]!r}; the known ones are: {', '.join(known)}")

    return text


def _time(fields: Any, name: str, what: str) -> datetime | None:
    text = _optional(fields, name, str, what)
    if text is None:
        return None

    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(what, f"{name!r} is {text[:80]!r}; a time is expected") from None

    return time if time.tzinfo else time.replace(tzinfo=UTC)
