"""The work of one node: all attempts at its function, or at each item of its input."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from ._attempt import CutShort, attempts
from ._errors import TopologyError, recorded
from ._node import Node
from ._unset import UNSET

if TYPE_CHECKING:
    from ._run import Run

__all__ = ("perform",)


async def perform(run: Run, name: str, node: Node) -> Any:
    """Return what the node's function returned, or the list of what it returned for each item.

    Raises:
        CutShort: it did not come to an end; what is done of it is in the plan.
        Exception: what the last attempt raised.
    """
    state = run.plan[name]
    data = () if state.input is UNSET else state.input
    if node.map:
        return await _Items(run, name, node, data).perform()

    def store(value: Any) -> None:
        run.plan.update(name, value)
        run.changed()

    return await attempts(run, name, node, data, state.state, store)


class _Items:
    """The items of a node with `map`, each with a state of its own."""

    def __init__(self, run: Run, name: str, node: Node, data: tuple[Any, ...]) -> None:
        if len(data) != 1 or not isinstance(data[0], list | tuple):
            raise TopologyError(f"node {name!r} has map: its input must be one list, and is {data!r:.200}")

        self._run = run
        self._name = name
        self._node = node
        self._inputs = data[0]
        self._states = run.plan.items_of(name, len(data[0]))
        self._limit = anyio.Semaphore(int(min(run.max_concurrency, len(self._states))) or 1)
        self._errors: list[Exception] = []

    async def perform(self) -> list[Any]:
        async with anyio.create_task_group() as group:
            for index, item in enumerate(self._states):
                if item.status != "completed":
                    group.start_soon(self._perform_item, index)

        if self._errors:
            raise _together(self._errors)

        if any(item.status != "completed" for item in self._states):
            raise CutShort

        return [item.output for item in self._states]

    async def _perform_item(self, index: int) -> None:
        async with self._limit:
            if self._run.stopping:
                return

            self._set(index, status="running")
            try:
                output = await self._attempts(index)
                self._set(index, status="completed", output=deepcopy(output), error=UNSET)
            except CutShort:
                self._set(index, status="pending")
            except Exception as error:
                self._set(index, status="errored", error=recorded(error))
                self._errors.append(error)

    async def _attempts(self, index: int) -> Any:
        def store(value: Any) -> None:
            self._set(index, state=value)

        data, state = (self._inputs[index],), self._states[index].state
        return await attempts(self._run, self._name, self._node, data, state, store)

    def _set(self, index: int, **fields: Any) -> None:
        self._states[index] = replace(self._states[index], **fields)
        self._run.changed()


def _together(errors: list[Exception]) -> Exception:
    return errors[0] if len(errors) == 1 else ExceptionGroup(f"{len(errors)} items failed", errors)
