"""The ways to run a topology."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypedDict, Unpack

import anyio

from .._groups import unwrapped
from ..jobs import CancelReason
from ._errors import TopologyError
from ._node import check_token
from ._plan import Plan
from ._resume import first_snapshot, resumed
from ._run import Run
from ._snapshot import Snapshot
from ._topology import Topology
from ._unset import UNSET
from ._writer import Revision, Saving, Store

__all__ = ("RunOptions", "StartOptions", "resume_topology", "run_topology", "start", "start_from")


class RunOptions(TypedDict, total=False):
    """Keyword arguments of everything that runs a topology; `start_from` has their meaning and defaults."""

    context: Any
    store: Store | None
    max_concurrency: int | None
    fail_fast: bool
    debounce: float
    max_wait: float


class StartOptions(RunOptions, total=False):
    """Keyword arguments of `run_topology` and `start`; `start` has their meaning and defaults."""

    include: Iterable[str] | None
    exclude: Iterable[str] | None
    id: str | None


async def run_topology(topology: Topology, data: Any = UNSET, **options: Unpack[StartOptions]) -> Snapshot:
    """Run a topology to its end, and return how it ended: `completed`, or `suspended` (see `Snapshot.suspended`).

    Cancelling it cancels the nodes, whose state is stored as pending.

    Args:
        topology: what to run.
        data: the input of the nodes without dependencies.
        **options: those of `start`.

    Raises:
        TopologyFailed: nodes failed; all that did not depend on them has come to its end.
        Conflict, SnapshotTooLarge, TopologyError: the snapshot could not be stored.
    """
    async with start(topology, data, **options) as run:
        pass

    return run.snapshot


async def resume_topology(
    topology: Topology,
    snapshot: Snapshot,
    *,
    answers: Mapping[str, Any] | None = None,
    resume_from: str | None = None,
    allow_changed: bool = False,
    data: Any = UNSET,
    revision: Revision | None = None,
    **options: Unpack[RunOptions],
) -> Snapshot:
    """Go on from a snapshot, and return how it ended. What is completed does not run again.

    Args:
        topology: the whole one, also when the snapshot is of a subset.
        snapshot: of a run that failed, was suspended, stopped, cancelled or lost. A completed one is returned as it is.
        answers: to suspensions, by the node's name.
        resume_from: this node and all below it run again.
        allow_changed: go on although the graph has changed: nodes with the same dependencies keep their results.
        data: for start nodes that have not run.
        revision: of what the store has; default: the snapshot's.
        **options: those of `start_from`.

    Raises:
        GraphChanged: the graph has changed, and that is not allowed.
        TopologyError: an answer to a node that does not wait for one.
        TopologyFailed, Conflict, SnapshotTooLarge: as `run_topology`.
    """
    if getattr(snapshot, "status", None) == "completed" and resume_from is None:
        return snapshot

    part, begun = resumed(
        topology, snapshot, answers=answers, resume_from=resume_from, allow_changed=allow_changed
    )
    revision = begun.revision if revision is None else revision
    async with start_from(part, begun, data=data, revision=revision, **options) as run:
        pass

    return run.snapshot


@asynccontextmanager
async def start(
    topology: Topology,
    data: Any = UNSET,
    *,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    id: str | None = None,
    **options: Unpack[RunOptions],
) -> AsyncIterator[Run]:
    """Run a topology while the block runs; leaving it waits for the end, as a nursery does.

    Args:
        topology: what to run.
        data: the input of the nodes without dependencies.
        include: run only these; their other dependencies are cut.
        exclude: run all but these.
        id: of the run; needed with a store.
        **options: those of `start_from`.

    Raises:
        TopologyFailed, Conflict, SnapshotTooLarge, TopologyError: as `run_topology`, when the block is left.
    """
    part = topology.subset(include=include, exclude=exclude)
    async with start_from(part, first_snapshot(part, id), data=data, **options) as run:
        yield run


@asynccontextmanager
async def start_from(
    topology: Topology,
    snapshot: Snapshot,
    *,
    data: Any = UNSET,
    context: Any = None,
    store: Store | None = None,
    revision: Revision | None = None,
    max_concurrency: int | None = None,
    fail_fast: bool = False,
    debounce: float = 0.0,
    max_wait: float = 1.0,
    reason_of: Callable[[], CancelReason | None] = lambda: None,
) -> AsyncIterator[Run]:
    """Run a topology from a snapshot of that very graph on.

    Args:
        topology: the graph.
        snapshot: made by `first_snapshot` or `resumed`.
        data: the input of the nodes without dependencies.
        context: given to every node, never stored.
        store: where the snapshot is kept while the run goes on.
        revision: of what the store has; None when it has none.
        max_concurrency: most nodes, and items of one node, at once; 1 or more.
        fail_fast: cancel the other nodes when one has failed; they are pending then.
        debounce: seconds without a change before a save.
        max_wait: seconds that a change waits at most.
        reason_of: why what is around the run is being cancelled.
    """
    if max_concurrency is not None and max_concurrency < 1:
        raise TopologyError(f"max_concurrency is {max_concurrency!r}; a number of 1 or more is needed")

    if store is not None:
        check_token("id", snapshot.id)

    plan = Plan(topology, snapshot, data)
    run = Run(
        topology,
        plan,
        Saving(store, snapshot.id or "", revision, debounce, max_wait),
        context=context,
        max_concurrency=max_concurrency or math.inf,
        fail_fast=fail_fast,
        reason_of=reason_of,
    )
    with unwrapped():
        async with anyio.create_task_group() as group:
            group.start_soon(run.perform)
            yield run

    run.raise_failure()
