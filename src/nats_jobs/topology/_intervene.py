"""What is done to a run from outside: it is answered, resumed, cancelled. All by compare-and-set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..jobs import Enqueued, JobDef, Processor
from ._errors import Conflict, TopologyError
from ._job import store_of
from ._snapshot import Snapshot
from ._writer import Revision, Store

__all__ = ("cancel_topology", "enqueue_resume")

# A run that goes on saves all the time.
_MAX_TRIES = 100


async def enqueue_resume(
    processor: Processor, defn: JobDef[Any], id: str, *, answers: Mapping[str, Any] | None = None
) -> Enqueued:
    """What `JobProcessor.resume_topology` does."""
    store = store_of(defn, processor)
    snapshot, revision = await _found(store, id)
    if snapshot.cancelled is not None:
        raise TopologyError(f"run {id!r} was cancelled: {snapshot.cancelled}")

    answered = snapshot.answered(answers or {})
    if answered is not snapshot:
        await store.save(id, answered, revision)

    return await processor.enqueue(defn, {"topologyId": id})


async def cancel_topology(store: Store, id: str, *, reason: str = "cancelled") -> Snapshot:
    """Cancel run `id` for good, and return what is stored then: `errored`, with `Snapshot.cancelled`.

    Its jobs are settled without running anything. A worker that has it in hand notices when it saves, after 5
    seconds without a save at the latest, and cancels its nodes with LEASE_LOST. `resume_topology` with the snapshot, and
    a fork of it, go on all the same.

    Args:
        store: where the run is kept.
        id: of the run.
        reason: for who looks at it.

    Raises:
        TopologyError: no such run, or it is completed.
        Conflict: others have saved it at every try.
    """
    for _ in range(_MAX_TRIES):
        snapshot, revision = await _found(store, id)
        if snapshot.cancelled is not None:
            return snapshot

        cancelled = snapshot.cancel(reason)
        try:
            await store.save(id, cancelled, revision)
        except Conflict:
            continue

        return cancelled

    raise Conflict(id)


async def _found(store: Store, id: str) -> tuple[Snapshot, Revision]:
    found = await store.load(id)
    if found is None:
        raise TopologyError(f"there is no run {id!r}")

    return found
