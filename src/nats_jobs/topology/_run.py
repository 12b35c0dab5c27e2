"""One run of a topology: a task group whose tasks are its nodes.

A node's task ends with a change of the plan, and starts the nodes that this has made ready: there is no loop
that looks for them. When nothing is ready and nothing runs, the group is empty and the run is at its end.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from .._clock import running_clock
from ..jobs import CancelReason
from ._attempt import CutShort, attempts
from ._context import NodeContext, Selected
from ._errors import TopologyError, TopologyFailed
from ._node import Node
from ._plan import Plan
from ._snapshot import UNSET, ItemState, Snapshot
from ._topology import Topology
from ._writer import Writer

__all__ = ("Run",)

# Seconds for the last save of a run that is being cancelled.
_LAST_SAVE_TIMEOUT = 30.0


class Run:
    """A topology being run. Made by `start`; iterate over it for its snapshots."""

    def __init__(
        self,
        topology: Topology,
        plan: Plan,
        *,
        context: Any,
        max_concurrency: float,
        fail_fast: bool,
        reason_of: Callable[[], CancelReason | None],
    ) -> None:
        self.context = context
        self.errors: dict[str, Exception] = {}
        """What failed nodes raised, in the order in which they failed."""
        self.stopping = False
        self.stop_at = math.inf
        self.clock = running_clock()
        self._topology = topology
        self._plan = plan
        self._max_concurrency = max_concurrency
        self._fail_fast = fail_fast
        self._reason_of = reason_of
        self._reason: CancelReason | None = None
        self._watched: set[NodeContext[Any]] = set()
        self._group: TaskGroup
        self._writer: Writer
        self._change = anyio.Event()
        self._interrupted = True
        self._ended = False

    # For the user...

    @property
    def snapshot(self) -> Snapshot:
        """The state of now; it never changes."""
        return self._plan.snapshot()

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
        return self._plan.answers_for(name)

    @contextmanager
    def watching(self, ctx: NodeContext[Any]) -> Iterator[None]:
        """A stop reaches this attempt from now on."""
        self._watched.add(ctx)
        try:
            yield
        finally:
            self._watched.discard(ctx)

    # The run itself...

    async def perform(self, writer: Writer) -> None:
        """Run all nodes that can be run, and store how it ended.

        Raises:
            Conflict: somebody else has the run; nothing more was stored.
            Exception: the snapshot cannot be stored.
        """
        self._writer = writer
        writer.changed()
        try:
            await writer.flush()
            async with anyio.create_task_group() as saving:
                saving.start_soon(writer.run)
                async with anyio.create_task_group() as self._group:
                    self._start_ready()

                self._interrupted = self.stopping
                saving.cancel_scope.cancel("the run has ended")
        finally:
            await self._finish()

    async def _finish(self) -> None:
        for name in list(self._plan.running):
            self._plan.put_back(name)

        if self.reason is CancelReason.LEASE_LOST:
            self._writer.abandon()

        self._plan.finish(self._interrupted)
        self._ended = True
        self._changed()
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LAST_SAVE_TIMEOUT):
            await self._save_last()

    async def _save_last(self) -> None:
        try:
            await self._writer.flush()
        except Exception as error:
            # Neither hides the other.
            if self.errors:
                error.add_note(str(TopologyFailed(self.snapshot, self.errors)))

            raise

    def raise_failure(self) -> None:
        """Raise what the nodes raised.

        Raises:
            TopologyFailed: a node failed.
        """
        if self.errors:
            raise TopologyFailed(self.snapshot, dict(self.errors)) from next(iter(self.errors.values()))

    def _changed(self) -> None:
        self._writer.changed()
        self._change.set()
        self._change = anyio.Event()

    def _start_ready(self) -> None:
        plan = self._plan
        while plan.ready and not self.stopping and len(plan.running) < self._max_concurrency:
            name = plan.ready.popleft()
            plan.start(name)
            self._group.start_soon(self._node, name)

        self._changed()

    async def _node(self, name: str) -> None:
        try:
            output = await self._perform_node(name)
            self._complete(name, output)
        except CutShort:
            self._plan.put_back(name)
        except Exception as error:
            self._fail(name, error)

        self._start_ready()
        if self._topology.nodes[name].type == "suspension":
            await self._writer.flush()

    async def _perform_node(self, name: str) -> Any:
        node, state = self._topology.nodes[name], self._plan[name]
        data = () if state.input is UNSET else state.input
        if node.map:
            return await self._perform_items(name, node, data)

        def store(value: Any) -> None:
            self._plan.update(name, value)
            self._changed()

        return await attempts(self, name, node, data, state.state, store)

    async def _perform_items(self, name: str, node: Node, data: tuple[Any, ...]) -> list[Any]:
        if len(data) != 1 or not isinstance(data[0], list | tuple):
            raise TopologyError(f"node {name!r} has map: its input must be one list, and is {data!r:.200}")

        items = self._plan.items_of(name, len(data[0]))
        errors: list[Exception] = []
        limit = anyio.Semaphore(int(min(self._max_concurrency, len(items)) or 1))

        async def perform(index: int) -> None:
            async with limit:
                if not self.stopping:
                    await self._perform_item(name, node, items, index, data[0][index], errors)

        async with anyio.create_task_group() as group:
            for index, item in enumerate(items):
                if item.status != "completed":
                    group.start_soon(perform, index)

        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup(f"{len(errors)} items failed", errors)

        if any(item.status != "completed" for item in items):
            raise CutShort

        return [item.output for item in items]

    async def _perform_item(
        self, name: str, node: Node, items: list[ItemState], index: int, item: Any, errors: list[Exception]
    ) -> None:
        def store(value: Any) -> None:
            items[index] = replace(items[index], state=value)
            self._changed()

        items[index] = replace(items[index], status="running")
        try:
            output = await attempts(self, name, node, (item,), items[index].state, store)
            items[index] = ItemState(status="completed", output=deepcopy(output), state=items[index].state)
        except CutShort:
            items[index] = replace(items[index], status="pending")
        except Exception as error:
            items[index] = replace(items[index], status="errored", error=_recorded(error))
            errors.append(error)

        self._changed()

    def _complete(self, name: str, output: Any) -> None:
        match self._topology.nodes[name].type:
            case "work":
                self._plan.complete(name, deepcopy(output))
            case "suspension":
                self._plan.complete(name)
            case "branching" if isinstance(output, Selected):
                self._plan.select(name, output.name, output.reason)
            case "branching":
                raise TopologyError(
                    f"branching node {name!r} returned {output!r:.200}; return ctx.branch(…) or ctx.none()"
                )

    def _fail(self, name: str, error: Exception) -> None:
        self.errors[name] = error
        self._plan.fail(name, _recorded(error))
        if self._fail_fast:
            self._cut_short(CancelReason.CANCELLED)

    def _cut_short(self, reason: CancelReason) -> None:
        self.stopping = True
        self._reason = self._reason or reason
        for ctx in list(self._watched):
            ctx.cut_short(reason)


def _recorded(error: Exception) -> dict[str, Any]:
    """The stored form of an error: its own fields as texts where JSON has no form, and its stack."""
    own = {
        name: value if isinstance(value, str | int | float | bool | None) else repr(value)
        for name, value in vars(error).items()
    }
    stack = "".join(traceback.format_exception(error))
    return own | {"stack": stack[-8192:], "type": type(error).__qualname__, "message": str(error)[:2048]}
