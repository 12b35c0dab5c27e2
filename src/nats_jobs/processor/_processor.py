"""All that can be done with a processor: workers and enqueueing are of `jobs`, the rest is added here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..jobs import Enqueued, JobDef, Processor
from ..topology import enqueue_resume

__all__ = ("JobProcessor",)


class JobProcessor(Processor):
    """Starts workers and enqueues jobs, on one connection. Made by `job_processor`."""

    # Topologies...

    async def resume_topology(
        self, defn: JobDef[Any], topology_id: str, *, answers: Mapping[str, Any] | None = None
    ) -> Enqueued:
        """Store answers to the suspensions of a run, and enqueue a job that goes on with it.

        When the answers were stored but the job was not enqueued (a lost connection, a cancellation), call it again with
        the same answers: what is stored stays, and a job is enqueued.

        Args:
            defn: made by `topology_job`.
            topology_id: of the run.
            answers: by the name of the suspension node; none for a run that has failed and is to be tried again.

        Raises:
            Conflict: somebody else has answered in the same moment; nothing was enqueued.
            TopologyError: no such run, a cancelled one, or a node that does not wait for an answer, or has another one.
        """
        return await enqueue_resume(self, defn, topology_id, answers=answers)
