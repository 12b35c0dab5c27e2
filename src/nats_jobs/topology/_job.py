"""A topology as a job: a delivery goes on where the one before it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio

from .._untrusted import field_of
from ..errors import Malformed, Reject, Snooze
from ..jobs import Enqueued, Job, JobDef, Processor
from ._errors import Conflict, GraphChanged, SnapshotTooLarge, TopologyError
from ._kv_store import KVStore
from ._resume import first_snapshot, resumed
from ._snapshot import UNSET, Snapshot
from ._start import start_from
from ._topology import Topology
from ._writer import Store

__all__ = ("enqueue_resume", "topology_job")

_WHAT = "topology job"


def topology_job(
    topology: Topology,
    *,
    stream: str,
    store: str | Store = "topologies",
    topology_id: Callable[[Job[Any]], str] | None = None,
    should_resume: Callable[[Snapshot], bool] | None = None,
    debounce: float = 0.0,
    max_wait: float = 1.0,
    **fields: Any,
) -> JobDef[Any]:
    """Return a definition whose jobs run `topology`.

    The payload is an object with `data`, `context`, `includeNodes`, `excludeNodes` and `topologyId`, all of them
    optional. A job delivered again goes on from its snapshot. One whose run
    is completed, or waits for an answer (`enqueue_resume`), is settled without running anything.

    Args:
        topology: what to run.
        stream: see `JobDef.stream`.
        store: where snapshots are kept; a text is the name of a key-value bucket.
        topology_id: returns the id of a job's run, unless its payload has a `topologyId`; `<stream>-<sequence>` by
            default.
        should_resume: returns False for a snapshot that is to be replaced by a run from the start; by default each is
            resumed.
        debounce, max_wait: see `start`.
        **fields: the other fields of `JobDef`.
    """
    perform = _Performer(
        topology,
        store,
        topology_id=topology_id or _own_id,
        should_resume=should_resume or (lambda snapshot: True),
        debounce=debounce,
        max_wait=max_wait,
    )
    return JobDef(stream=stream, perform=perform, **fields)


async def enqueue_resume(
    processor: Processor, defn: JobDef[Any], id: str, *, answers: Mapping[str, Any]
) -> Enqueued:
    """Store answers to the suspensions of run `id`, and enqueue a job that goes on with it.

    When the answers were stored but the job was not enqueued (a lost connection, a cancellation), call it again with
    the same answers: what is stored stays, and a job is enqueued.

    Args:
        processor: what enqueues it.
        defn: made by `topology_job`.
        id: of the run.
        answers: by the name of the suspension node.

    Raises:
        Conflict: somebody else has answered in the same moment; nothing was enqueued.
        TopologyError: no such run, or a node that does not wait for an answer, or has another one.
    """
    perform = defn.perform
    if not isinstance(perform, _Performer):
        raise TopologyError(f"{defn!r} was not made by topology_job")

    store = perform.store_of(processor)
    found = await store.load(id)
    if found is None:
        raise TopologyError(f"there is no run {id!r}")

    snapshot, revision = found
    answered = snapshot.answered(answers)
    if answered is not snapshot:
        await store.save(id, answered, revision)

    return await processor.enqueue(defn, {"topologyId": id})


class _Performer:
    """What a job of a topology is performed by."""

    def __init__(
        self,
        topology: Topology,
        store: str | Store,
        *,
        topology_id: Callable[[Job[Any]], str],
        should_resume: Callable[[Snapshot], bool],
        debounce: float,
        max_wait: float,
    ) -> None:
        self._topology = topology
        self._store = store
        self._topology_id = topology_id
        self._should_resume = should_resume
        self._debounce = debounce
        self._max_wait = max_wait

    def store_of(self, processor: Processor) -> Store:
        return KVStore(processor, self._store) if isinstance(self._store, str) else self._store

    async def __call__(self, job: Job[Any]) -> None:
        try:
            await self._perform(job, self.store_of(job.processor))
        except (Malformed, GraphChanged, SnapshotTooLarge, TopologyError) as error:
            # Another attempt would come to the same.
            raise Reject(str(error)) from error
        except Conflict as error:
            # Another delivery has the run: what there is to do then is seen in its snapshot.
            raise Snooze(1.0) from error

    async def _perform(self, job: Job[Any], store: Store) -> None:
        message = {} if job.payload is None else job.payload
        id = field_of(message, "topologyId", str, _WHAT, "") or self._topology_id(job)
        found = await store.load(id)
        earlier = found[0] if found is not None and self._should_resume(found[0]) else None
        if earlier is not None and earlier.status in ("completed", "suspended"):
            return

        topology, snapshot = self._beginning(message, id, earlier)
        async with (
            start_from(
                topology,
                snapshot,
                data=message.get("data", UNSET),
                context=message.get("context"),
                store=store,
                revision=found and found[1],
                reason_of=lambda: job.reason,
                debounce=self._debounce,
                max_wait=self._max_wait,
            ) as run,
            anyio.create_task_group() as watching,
        ):
            watching.start_soon(_stop_with, job, run)
            await run.wait_ended()
            watching.cancel_scope.cancel("the run has ended")

        if run.snapshot.status == "running":
            # It was stopped between two nodes; another worker goes on.
            raise Snooze(0.0)

    def _beginning(
        self, message: dict[str, Any], id: str, earlier: Snapshot | None
    ) -> tuple[Topology, Snapshot]:
        if earlier is not None:
            return resumed(self._topology, earlier)

        part = self._topology.subset(include=message.get("includeNodes"), exclude=message.get("excludeNodes"))
        return part, first_snapshot(part, id)


def _own_id(job: Job[Any]) -> str:
    return f"{job.stream}-{job.sequence}"


async def _stop_with(job: Job[Any], run: Any) -> None:
    await job.wait_stopping()
    run.stop()
