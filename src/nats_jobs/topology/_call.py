"""Calling the functions of nodes: in the event loop, in threads and processes, by the means that jobs have for it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import anyio

from .._untrusted import parse_json
from ..errors import NatsJobsError
from ..jobs import HandlerThread, ProcessEnded, ProcessPool, is_async, tell_parent
from ._context import NodeContext
from ._node import Node

__all__ = ("Caller", "DetachedNode", "NodeDied")

# Threads of one run at once.
_MAX_THREADS = 40
_MAX_STATE_BYTES = 1 << 24


class NodeDied(NatsJobsError):
    """The process of a node ended before its function returned."""


@dataclass(frozen=True, slots=True)
class DetachedNode:
    """What a function with `run_in="process"` is given: the facts of a `NodeContext`, by the same names."""

    data: tuple[Any, ...]
    node: str
    context: Any
    state: Any
    attempt: int
    answers: dict[str, Any]

    @property
    def answer(self) -> Any:
        """The answer of the one suspension that this node depends on; None without an answer."""
        return next(iter(self.answers.values()), None)

    def update_state(self, value: Any) -> None:
        """As `NodeContext.update_state`.

        Raises:
            TypeError, ValueError: JSON cannot carry it.
        """
        tell_parent(value)


class Caller:
    """Calls the functions of one run."""

    def __init__(self, max_concurrency: float) -> None:
        self._limiter = anyio.CapacityLimiter(min(max_concurrency, _MAX_THREADS))
        self._pools: dict[Any, ProcessPool] = {}

    async def call(self, node: Node, ctx: NodeContext[Any]) -> Any:
        """Return what the node's function returns.

        Raises:
            NodeDied: its process has ended by itself.
            Exception: what it raises.
        """
        function: Any = node.run
        if function is None:
            return None

        if is_async(function):
            return await function(ctx)

        if node.run_in == "process":
            return await self._call_in_process(function, ctx)

        returned = await HandlerThread(ctx, function).run(self._limiter)
        return await returned if inspect.isawaitable(returned) else returned

    async def close(self) -> None:
        """End the processes."""
        for pool in self._pools.values():
            await pool.close()

    async def _call_in_process(self, function: Any, ctx: NodeContext[Any]) -> Any:
        if function not in self._pools:
            self._pools[function] = ProcessPool(function, returns=True)

        try:
            return await self._pools[function].call(
                _detached(ctx),
                lambda told: ctx.update_state(
                    parse_json(told, "the state of a node", max_bytes=_MAX_STATE_BYTES)
                ),
            )
        except ProcessEnded as ended:
            raise NodeDied(
                f"the process of node {ctx.node!r} ended before its function returned: {ended.reason}"
            ) from None


def _detached(ctx: NodeContext[Any]) -> DetachedNode:
    return DetachedNode(ctx.data, ctx.node, ctx.context, ctx.state, ctx.attempt, dict(ctx.answers))
