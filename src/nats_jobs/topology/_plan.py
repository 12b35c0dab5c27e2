"""Which node runs next, and with what: the state of one run. No IO, no tasks.

Every change costs as much as the node has neighbours, so a run costs as much as its graph has edges. A
`Snapshot` is made only when somebody looks.

Rules. A node is ready when all its dependencies are completed (`join="any"`: all settled and one completed).
A node below a skipped one is skipped at once. What depends on a suspension without an answer is suspended,
until it is answered. What was not settled at the end stays pending, to be resumed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from ._errors import TopologyError
from ._graph_rules import all_below
from ._snapshot import ItemState, NodeState, RunStatus, Snapshot, Status, is_open
from ._topology import Topology
from ._unset import UNSET

__all__ = ("Plan",)

_SETTLED = ("completed", "skipped")


class Plan:
    """The state of one run of `topology`, from a snapshot of that graph on."""

    def __init__(
        self,
        topology: Topology,
        start: Snapshot,
        data: Any = UNSET,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.ready: deque[str] = deque()
        self.running: set[str] = set()
        self._topology = topology
        self._start = start
        self._data = () if data is UNSET else (data,)
        self._clock = clock
        self._nodes: dict[str, NodeState] = {}
        self._items: dict[str, list[ItemState]] = {}
        self._unsettled: dict[str, int] = {}
        self._status: RunStatus = "running"
        self._finished: datetime | None = None
        self._load(start)

    # What is so...

    def __getitem__(self, name: str) -> NodeState:
        return self._nodes[name]

    def input_of(self, name: str) -> tuple[Any, ...]:
        """What the dependencies give: an output each; what is no work passes on its own input."""
        deps = self._topology.nodes[name].deps
        if not deps:
            return self._data

        entries: list[Any] = []
        for dep in deps:
            state = self._nodes[dep]
            if state.status != "completed":
                continue

            if state.type == "work":
                entries.append(None if state.output is UNSET else state.output)
            elif state.input is not UNSET:
                entries.extend(state.input)

        return tuple(entries)

    def answers_for(self, name: str) -> dict[str, Any]:
        """The answers of the suspensions that a node depends on."""
        states = {dep: self._nodes[dep] for dep in self._topology.nodes[name].deps}
        return {
            dep: state.output
            for dep, state in states.items()
            if state.type == "suspension" and state.output is not UNSET
        }

    def snapshot(self) -> Snapshot:
        nodes = dict(self._nodes)
        for name, items in self._items.items():
            nodes[name] = replace(nodes[name], items=tuple(items))

        return replace(self._start, nodes=nodes, status=self._status, finished=self._finished)

    # What happens...

    def start(self, name: str) -> NodeState:
        """Take a ready node; its input is that of the first time."""
        state = self._nodes[name]
        given = self.input_of(name) if state.input is UNSET else state.input
        self.running.add(name)
        # A start node without data has no input, which is not an empty one.
        known = bool(given or self._topology.nodes[name].deps)
        return self._set(name, status="running", started=self._clock(), input=given if known else UNSET)

    def update(self, name: str, state: Any) -> None:
        self._set(name, state=state)

    def items_of(self, name: str, count: int) -> list[ItemState]:
        """The states of a mapped node's items; those that a resumed run brought along are kept."""
        items = self._items.setdefault(name, list(self._nodes[name].items or ()))
        del items[count:]
        items.extend(ItemState() for _ in range(count - len(items)))
        return items

    def complete(self, name: str, output: Any = UNSET) -> None:
        self._end(name, "completed", output=output)
        blocked = is_open(self._nodes[name])
        for below in self._topology.dependents[name]:
            if blocked:
                self._suspend(below)
            else:
                self._one_settled(below)

    def select(self, name: str, selected: str | None, reason: str | None) -> None:
        """A branching node has chosen.

        Raises:
            TopologyError: what it selected does not depend on it.
        """
        dependents = self._topology.dependents[name]
        if selected is not None and selected not in dependents:
            self._set(name, selected=selected)
            raise TopologyError(
                f"branch not found: node {name!r} selected {selected!r}; its dependents are {', '.join(dependents)}"
            )

        self._end(name, "completed", selected=selected, reason=reason)
        for below in dependents:
            if below == selected:
                self._one_settled(below)
            else:
                self._skip(below)

    def fail(self, name: str, error: Any) -> None:
        self._end(name, "errored", error=error)

    def give_up(self, name: str, error: Any) -> None:
        """What a node has returned cannot be kept: it is errored, whatever it was."""
        self._end(name, "errored", error=error, output=UNSET, state=UNSET, items=None)
        for below in all_below(name, self._topology.dependents):
            state = self._nodes[below]
            done = state.type == "work" and state.status == "completed"
            self._nodes[below] = replace(state if done else state.reset(), input=UNSET)

    def put_back(self, name: str) -> None:
        """It was cut short through no fault of its own: pending again, with its state."""
        self.running.discard(name)
        self._freeze_items(name)
        self._nodes[name] = self._nodes[name].reset()

    def finish(self, interrupted: bool) -> None:
        """Nothing runs any more. Completed is only what is settled to the last node: what was interrupted before its
        end stays `running`, which can be resumed."""
        statuses = {node.status for node in self._nodes.values()}
        if "errored" in statuses:
            self._status = "errored"
        elif statuses <= set(_SETTLED):
            self._status = "completed"
        elif "suspended" in statuses and not interrupted:
            self._status = "suspended"
            self._suspend_pending()
        else:
            return

        self._finished = self._clock()

    # ...

    def _load(self, start: Snapshot) -> None:
        nodes = self._topology.nodes
        self._nodes = {
            name: state if state.status in _SETTLED else state.reset() for name, state in start.nodes.items()
        }
        for name, node in nodes.items():
            self._unsettled[name] = sum(self._nodes[dep].status not in _SETTLED for dep in node.deps)

        for name, node in nodes.items():
            if node.type == "suspension" and is_open(self._nodes[name]) and self._holds(name, start):
                for below in self._topology.dependents[name]:
                    self._suspend(below)
            elif node.type == "branching" and self._nodes[name].status == "completed":
                self._apply_branch(name)

        # What the branches above have made ready is found again, with the rest.
        self.ready.clear()
        for name in nodes:
            self._consider(name)

    def _holds(self, name: str, start: Snapshot) -> bool:
        # The Node library releases a suspension without an answer: then nothing below is suspended any more.
        below = [start.nodes[each].status for each in self._topology.dependents[name]]
        return "suspended" in below or start.digest is not None

    def _apply_branch(self, name: str) -> None:
        for below in self._topology.dependents[name]:
            if below != self._nodes[name].selected:
                self._skip(below)

    def _one_settled(self, name: str) -> None:
        self._unsettled[name] -= 1
        self._consider(name)

    def _consider(self, name: str) -> None:
        match self._verdict(name):
            case "ready":
                self.ready.append(name)
            case "skip":
                self._skip(name)

    def _verdict(self, name: str) -> Literal["ready", "skip", "wait"]:
        if self._nodes[name].status != "pending" or self._unsettled[name]:
            return "wait"

        node = self._topology.nodes[name]
        statuses = [self._nodes[dep].status for dep in node.deps]
        can_run = "completed" in statuses or not statuses if node.join == "any" else "skipped" not in statuses
        return "ready" if can_run else "skip"

    def _skip(self, name: str) -> None:
        """Skip a node and everything that cannot run any more: a chain may be longer than Python recurses."""
        left = [name]
        while left:
            name = left.pop()
            if self._nodes[name].status not in ("pending", "suspended"):
                continue

            self._set(name, status="skipped")
            for below in self._topology.dependents[name]:
                self._unsettled[below] -= 1
                if self._topology.nodes[below].join == "all" or (verdict := self._verdict(below)) == "skip":
                    left.append(below)
                elif verdict == "ready":
                    self.ready.append(below)

    def _suspend(self, name: str) -> None:
        if self._nodes[name].status == "pending":
            self._set(name, status="suspended")

    def _suspend_pending(self) -> None:
        for name, node in self._nodes.items():
            if node.status == "pending":
                self._nodes[name] = replace(node, status="suspended")

    def _end(self, name: str, status: Status, **fields: Any) -> None:
        self.running.discard(name)
        self._freeze_items(name)
        self._set(name, status=status, finished=self._clock(), **fields)

    def _freeze_items(self, name: str) -> None:
        if items := self._items.pop(name, None):
            self._set(name, items=tuple(items))

    def _set(self, name: str, **fields: Any) -> NodeState:
        self._nodes[name] = state = replace(self._nodes[name], **fields)
        return state
