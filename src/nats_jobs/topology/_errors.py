"""What can go wrong with a graph of work."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._groups import text_of
from ..errors import NatsJobsError

if TYPE_CHECKING:
    from ._snapshot import Snapshot

__all__ = ("Conflict", "GraphChanged", "SnapshotTooLarge", "TopologyError", "TopologyFailed", "recorded")


class TopologyError(NatsJobsError, ValueError):
    """A topology that could not work, or a call that does not fit it. The text names the node."""


@dataclass(eq=False)
class GraphChanged(TopologyError):
    """A snapshot was made with another graph; `differences` says in which nodes."""

    differences: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"the graph has changed since the snapshot: {'; '.join(self.differences)}. "
            "Resume with the old graph, or pass allow_changed=True"
        )


@dataclass(eq=False)
class TopologyFailed(NatsJobsError):
    """Nodes raised. `errors` has the exception of each by its node's name, `snapshot` is what to resume from."""

    snapshot: Snapshot
    errors: Mapping[str, Exception]

    def __str__(self) -> str:
        each = "; ".join(f"{name}: {text_of(error)}" for name, error in self.errors.items())
        return f"nodes of topology {self.snapshot.name!r} failed: {each}"


@dataclass(eq=False)
class Conflict(NatsJobsError):
    """Somebody else has saved the snapshot `id` since it was loaded. Load it again, and decide again."""

    id: str

    def __str__(self) -> str:
        return f"snapshot {self.id!r} was saved by somebody else meanwhile; load it again"


@dataclass(eq=False)
class SnapshotTooLarge(NatsJobsError):
    """A snapshot does not fit into its store; `node` has the largest part of it. Sizes are in bytes."""

    node: str
    size: int
    limit: int

    def __str__(self) -> str:
        return (
            f"the snapshot has {self.size:,} bytes, {self.limit:,} fit into the store; node {self.node!r} "
            "is the largest: store its output elsewhere and return a reference"
        )


def recorded(error: BaseException) -> dict[str, Any]:
    """The stored form of an error: its own fields as texts where JSON has no form, and its stack."""
    own = {
        name: value if isinstance(value, str | int | float | bool | None) else repr(value)
        for name, value in vars(error).items()
    }
    stack = "".join(traceback.format_exception(error))
    return own | {"stack": stack[-8192:], "type": type(error).__qualname__, "message": str(error)[:2048]}
