"""A topology as a job: a delivery goes on where the one before it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypedDict

import anyio

from .._untrusted import field_of
from ..codecs import MSGPACK
from ..errors import Malformed, Reject, Snooze
from ..jobs import Job, JobDef, Processor
from ._errors import Conflict, GraphChanged, SnapshotTooLarge, TopologyError
from ._kv_store import KVStore
from ._resume import first_snapshot, resumed
from ._run import Run
from ._snapshot import Snapshot
from ._start import start_from
from ._topology import Topology
from ._unset import UNSET
from ._writer import Store

__all__ = ("store_of", "topology_job")

_WHAT = "topology job"


class JobRunOptions(TypedDict, total=False):
    """How the runs of a definition are run: see `topology_job`."""

    max_concurrency: int | None
    fail_fast: bool
    debounce: float
    max_wait: float


def topology_job(
    topology: Topology,
    *,
    stream: str,
    store: str | Store = "topologies",
    topology_id: Callable[[Job[Any]], str] | None = None,
    should_resume: Callable[[Snapshot], bool] | None = None,
    allow_changed: bool = False,
    context: Callable[[Job[Any]], Any] | None = None,
    max_concurrency: int | None = None,
    fail_fast: bool = False,
    debounce: float = 0.0,
    max_wait: float = 1.0,
    **fields: Any,
) -> JobDef[Any]:
    """Return a definition whose jobs run `topology`.

    The payload is an object with `data`, `context`, `includeNodes`, `excludeNodes` and `topologyId`, all of them
    optional. A job delivered again goes on from its snapshot. One whose run is completed, was cancelled, or waits
    for an answer (`JobProcessor.resume_topology`), is settled without running anything.

    Args:
        topology: what to run.
        stream: see `JobDef.stream`.
        store: where snapshots are kept; a text is the name of a key-value bucket.
        topology_id: returns the id of a job's run, unless its payload has a `topologyId`; `<stream>-<sequence>` by
            default.
        should_resume: returns False for a snapshot that is to be replaced by a run from the start; by default each is
            resumed.
        allow_changed: see `resume_topology`. A job whose graph has changed is parked as a dead letter otherwise.
        context: returns what the nodes of a job have as `ctx.context`; by default it is that of the payload.
        max_concurrency, fail_fast, debounce, max_wait: see `start`.
        **fields: the other fields of `JobDef`.
    """
    perform = _Performer(
        topology,
        store,
        topology_id=topology_id or _own_id,
        should_resume=should_resume or (lambda snapshot: True),
        allow_changed=allow_changed,
        context=context or _own_context,
        options={
            "max_concurrency": max_concurrency,
            "fail_fast": fail_fast,
            "debounce": debounce,
            "max_wait": max_wait,
        },
    )
    # No payload would do that is not decoded.
    return JobDef(stream=stream, perform=perform, **{"codec": MSGPACK, **fields})


def store_of(defn: JobDef[Any], processor: Processor) -> Store:
    """Return where the snapshots of a definition are kept.

    Raises:
        TopologyError: it was not made by `topology_job`.
    """
    perform = defn.perform
    if not isinstance(perform, _Performer):
        raise TopologyError(f"{defn!r} was not made by topology_job")

    return perform.store_of(processor)


class _Performer:
    """What a job of a topology is performed by."""

    def __init__(
        self,
        topology: Topology,
        store: str | Store,
        *,
        topology_id: Callable[[Job[Any]], str],
        should_resume: Callable[[Snapshot], bool],
        allow_changed: bool,
        context: Callable[[Job[Any]], Any],
        options: JobRunOptions,
    ) -> None:
        self._topology = topology
        self._store = store
        self._topology_id = topology_id
        self._should_resume = should_resume
        self._allow_changed = allow_changed
        self._context = context
        self._options = options

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
        message = _message_of(job)
        id = field_of(message, "topologyId", str, _WHAT, "") or self._topology_id(job)
        found = await store.load(id)
        earlier = found[0] if found is not None and self._should_resume(found[0]) else None
        if earlier is not None and _is_settled(earlier):
            return

        topology, snapshot = self._beginning(message, id, earlier)
        async with (
            start_from(
                topology,
                _as_of(job, snapshot),
                data=message.get("data", UNSET),
                context=self._context(job),
                store=store,
                revision=found and found[1],
                reason_of=lambda: job.reason,
                **self._options,
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
            return resumed(self._topology, earlier, allow_changed=self._allow_changed)

        part = self._topology.subset(include=message.get("includeNodes"), exclude=message.get("excludeNodes"))
        return part, first_snapshot(part, id)


def _message_of(job: Job[Any]) -> dict[str, Any]:
    if job.payload is not None and not isinstance(job.payload, dict):
        raise Malformed(_WHAT, f"its payload is {job.payload!r:.200}; an object is expected")

    return job.payload or {}


def _own_id(job: Job[Any]) -> str:
    return f"{job.stream}-{job.sequence}"


def _own_context(job: Job[Any]) -> Any:
    return _message_of(job).get("context")


def _is_settled(snapshot: Snapshot) -> bool:
    return snapshot.status in ("completed", "suspended") or snapshot.cancelled is not None


def _as_of(job: Job[Any], snapshot: Snapshot) -> Snapshot:
    """Say which job runs it, by the names that the Node library has for that."""
    facts = {"stream": job.stream, "streamSequence": job.sequence, "numAttempts": job.attempt}
    return replace(snapshot, extra={**snapshot.extra, **facts})


async def _stop_with(job: Job[Any], run: Run) -> None:
    await job.wait_stopping()
    run.stop()
