"""All that can be done with a processor: workers and enqueueing are of `jobs`, the rest is added here.

Each method imports the room that it stands for: a worker that has no topologies does not wait for them when it starts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..jobs import Enqueued, JobDef, JobHandle, Processor

if TYPE_CHECKING:
    from ..scheduler import (
        Delayed,
        DelayedPayloads,
        Recurring,
        Schedule,
        ScheduleHandle,
        Scheduler,
        Schedules,
    )

__all__ = ("JobProcessor",)


class JobProcessor(Processor):
    """Starts workers and enqueues jobs, on one connection. Made by `job_processor`."""

    # Schedules...

    def schedule(self, schedule: Schedule[Any]) -> ScheduleHandle:
        """Declare a schedule and follow it, and return at once.

        Each tick is enqueued once, however many processes follow the schedule, and whichever of them live. What was
        declared last, or with the highest `version`, is followed by all. The processor goes on until it is stopped.

        What goes wrong while its stream and record are set up, or later, is raised out of the processor's block.

        Raises:
            UsageError: it is not a Schedule, or the processor was told to stop.
            ScheduleError: this processor follows a schedule of that id already.
        """
        return self._scheduler.follow(schedule)

    async def start_schedule(self, schedule: Schedule[Any]) -> ScheduleHandle:
        """Declare a schedule and follow it, and return when its record stands and its next tick is known.

        Cancelling it leaves the schedule alone here; whether it was declared is open.

        Raises:
            UsageError, ScheduleError: as `schedule`; or its stream cannot do what it asks for.
            ConfigMismatch, SetupFailed, and what a request to JetStream raises: it could not be set up.
        """
        return await self._scheduler.start(schedule)

    async def schedule_delayed(self, id: str, payload: object, when: float | datetime) -> bool:
        """Store a payload that the handler of `run_delayed(id, …)` is given at its time, in some process.

        Whether this is a new one is decided by the server, in one step: the same payload may be scheduled by many.

        Args:
            id: of the handler; 1 to 64 of A-Z a-z 0-9 _ and -.
            payload: anything that MSGPACK encodes; what is encoded alike is the same.
            when: seconds from now, or an aware datetime; what has passed means at once.

        Returns:
            False: the same payload waits already, or is just being handled, and its time is not changed.

        Raises:
            UsageError, EncodeError: bad input; nothing was sent.
            ConfigMismatch, SetupFailed: the stream for these could not be set up.
            PublishRefused, NotConfirmed, NoResponders, RequestTimeout, ConnectionLost, PermissionDenied: it is not known
                to be stored; call it again.
        """
        return await self._delayed.schedule(id, payload, when)

    def run_delayed(
        self, id: str, handler: Callable[[Sequence[Delayed]], Awaitable[object]], *, limit: int = 100
    ) -> JobHandle[Any]:
        """Hand over what `schedule_delayed` has stored under `id` and is due, in batches, and return at once.

        Every payload is handed over, and again unless the handler has returned: a batch that fails is tried again, each
        payload as a job (five times, then it is a dead letter). One batch at a time in this process; several processes
        share the payloads. While the handler runs nobody else is given its batch. A stop waits for the handler as for a job.

        What goes wrong while its stream and consumer are set up, or later, is raised out of the processor's block.

        Args:
            id: 1 to 64 of A-Z a-z 0-9 _ and -.
            handler: an async function, given up to `limit` payloads.
            limit: 1 or more.

        Raises:
            UsageError: bad input, a handler for `id` that runs here already, or the processor was told to stop.
        """
        from ..scheduler import delayed_batches

        return self.start_soon(delayed_batches(id, handler, limit))

    @cached_property
    def _delayed(self) -> DelayedPayloads:
        from ..scheduler import DelayedPayloads

        return DelayedPayloads(self.api, timeout=self.enqueue_timeout)

    def run_recurring(self, function: Recurring) -> ScheduleHandle:
        """Run a function at each tick of its schedule that is claimed here, and return at once.

        Each tick is run by one of the processes that do this, at most once. A stop lets the function go on for the grace,
        then cancels it.

        Raises:
            UsageError: it was not made by `@recurring`, or the processor was told to stop.
            ScheduleError: this processor follows a schedule of that id already.
        """
        return self._scheduler.run(function)

    @cached_property
    def schedules(self) -> Schedules:
        """What is stored: list, get, pause, resume, fire, remove."""
        from ..scheduler import Schedules

        return Schedules(self.api, self._scheduler, self._emitter.emit, timeout=self.enqueue_timeout)

    @cached_property
    def _scheduler(self) -> Scheduler:
        # Imported when the first schedule comes: the zones and the rules take their time.
        from ..scheduler import Scheduler

        scheduler = Scheduler(
            self.api,
            self._group,
            self._emitter,
            stop_grace=self.stop_grace,
            patience=self.enqueue_timeout,
        )
        self.add_service(scheduler)
        return scheduler

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
        from ..topology import enqueue_resume

        return await enqueue_resume(self, defn, topology_id, answers=answers)
