"""One run of a topology: a task group whose tasks are its nodes.

A node's task ends with a change of the plan, and starts the nodes that this has made ready: there is no loop
that looks for them. When nothing is ready and nothing runs, the group is empty and the run is at its end.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from .._clock import running_clock
from ..jobs import CancelReason
from ._attempt import CutShort
from ._call import Caller
from ._context import NodeContext, Selected
from ._errors import SnapshotTooLarge, TopologyError, TopologyFailed, recorded
from ._perform import perform
from ._plan import Plan
from ._snapshot import Snapshot
from ._topology import Topology
from ._writer import Saving, Writer

__all__ = ("Run",)

# Seconds for the last save of a run that is being cancelled.
_LAST_SAVE_TIMEOUT = 30.0


class Run:
    """A topology being run. Made by `start`; iterate over it for its snapshots."""

    def __init__(
        self,
        topology: Topology,
        plan: Plan,
        saving: Saving,
        *,
        context: Any,
        max_concurrency: float,
        fail_fast: bool,
        reason_of: Callable[[], CancelReason | None],
    ) -> None:
        self.plan = plan
        self.context = context
        self.max_concurrency = max_concurrency
        self.caller = Caller(max_concurrency)
        self.errors: dict[str, Exception] = {}
        """What failed nodes raised, in the order in which they failed."""
        self.stopping = False
        self.stop_at = math.inf
        self.clock = running_clock()
        self._topology = topology
        self._fail_fast = fail_fast
        self._reason_of = reason_of
        self._reason: CancelReason | None = None
        self._watched: set[NodeContext[Any]] = set()
        self._group: TaskGroup
        self._writer = Writer(saving, plan.snapshot, self.lose)
        self._change = anyio.Event()
        self._interrupted = True
        self._ended = False

    # For the user...

    @property
    def snapshot(self) -> Snapshot:
        """The state of now; it never changes."""
        return replace(self.plan.snapshot(), revision=self._writer.revision)

    async def __aiter__(self) -> AsyncIterator[Snapshot]:
        """Yield the newest snapshot after each change, the last one included; a slow reader misses some."""
        while not self._ended:
            change = self._change
            yield self.snapshot
            await change.wait()

        yield self.snapshot

    def stop(self, *, grace: float = math.inf) -> None:
        """Start nothing more. Nodes that run may go on for `grace` seconds; then they are cancelled with STOP."""
        self.stopping = True
        self.stop_at = min(self.stop_at, anyio.current_time() + grace)
        for ctx in list(self._watched):
            ctx.ask_to_stop(self.stop_at)

    async def wait_ended(self) -> None:
        """Wait until the last node has ended."""
        while not self._ended:
            await self._change.wait()

    def lose(self) -> None:
        """Somebody else has the run: cancel the nodes with LEASE_LOST, and store nothing more."""
        self._cut_short(CancelReason.LEASE_LOST)
        self._writer.abandon()

    # For the nodes...

    @property
    def reason(self) -> CancelReason | None:
        """Why the whole run is being cut short."""
        return self._reason or self._reason_of()

    def answers_for(self, name: str) -> dict[str, Any]:
        return self.plan.answers_for(name)

    @contextmanager
    def watching(self, ctx: NodeContext[Any]) -> Iterator[None]:
        """A stop reaches this attempt from now on."""
        self._watched.add(ctx)
        try:
            yield
        finally:
            self._watched.discard(ctx)

    def changed(self) -> None:
        """There is something new for the store, and for who iterates."""
        self._writer.changed()
        self._change.set()
        self._change = anyio.Event()

    # The run itself...

    async def perform(self) -> None:
        """Run all nodes that can be run, and store how it ended.

        Raises:
            Conflict: somebody else has the run; nothing more was stored.
            Exception: the snapshot cannot be stored.
        """
        self._writer.changed()
        try:
            await self._writer.flush()
            async with anyio.create_task_group() as saving:
                saving.start_soon(self._writer.run)
                async with anyio.create_task_group() as self._group:
                    self._start_ready()

                self._interrupted = self.stopping
                saving.cancel_scope.cancel("the run has ended")
        finally:
            await self._finish()

    async def _finish(self) -> None:
        await self.caller.close()
        for name in list(self.plan.running):
            self.plan.put_back(name)

        if self.reason is CancelReason.LEASE_LOST:
            self._writer.abandon()

        self.plan.finish(self._interrupted)
        self._ended = True
        self.changed()
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LAST_SAVE_TIMEOUT):
            await self._save_last()

    async def _save_last(self) -> None:
        try:
            await self._flush_what_fits()
        except Exception as error:
            # Neither hides the other.
            if self.errors:
                error.add_note(str(TopologyFailed(self.snapshot, self.errors)))

            raise

    async def _flush_what_fits(self) -> None:
        try:
            await self._writer.flush()
        except SnapshotTooLarge as error:
            # What is stored says why the run has ended, without what was too large for it.
            self.plan.give_up(error.node, recorded(error))
            self.plan.finish(interrupted=True)
            self.changed()
            with suppress(SnapshotTooLarge):
                await self._writer.flush()

            raise

    def raise_failure(self) -> None:
        """Raise what the nodes raised.

        Raises:
            TopologyFailed: a node failed.
        """
        if self.errors:
            raise TopologyFailed(self.snapshot, dict(self.errors)) from next(iter(self.errors.values()))

    def _start_ready(self) -> None:
        plan = self.plan
        while plan.ready and not self.stopping and len(plan.running) < self.max_concurrency:
            name = plan.ready.popleft()
            plan.start(name)
            self._group.start_soon(self._node, name)

        self.changed()

    async def _node(self, name: str) -> None:
        try:
            output = await perform(self, name, self._topology.nodes[name])
            self._complete(name, output)
        except CutShort:
            self.plan.put_back(name)
        except Exception as error:
            self._fail(name, error)

        self._start_ready()
        if self._topology.nodes[name].type == "suspension":
            await self._writer.flush()

    def _complete(self, name: str, output: Any) -> None:
        match self._topology.nodes[name].type:
            case "work":
                self.plan.complete(name, deepcopy(output))
            case "suspension":
                self.plan.complete(name)
            case "branching" if isinstance(output, Selected):
                self.plan.select(name, output.name, output.reason)
            case "branching":
                raise TopologyError(
                    f"branching node {name!r} returned {output!r:.200}; return ctx.branch(…) or ctx.none()"
                )

    def _fail(self, name: str, error: Exception) -> None:
        self.errors[name] = error
        self.plan.fail(name, recorded(error))
        if self._fail_fast:
            self._cut_short(CancelReason.CANCELLED)

    def _cut_short(self, reason: CancelReason) -> None:
        self.stopping = True
        self._reason = self._reason or reason
        for ctx in list(self._watched):
            ctx.cut_short(reason)
