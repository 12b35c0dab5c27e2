"""One node, or one item of it, from its first attempt to its last."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import anyio

from ..backoff import delay_of
from ..errors import NatsJobsError
from ..jobs import CancelReason
from ._context import NodeContext
from ._node import Node

if TYPE_CHECKING:
    from ._run import Run

__all__ = ("CutShort", "NodeTimeout", "attempts")


class NodeTimeout(NatsJobsError, TimeoutError):
    """A node took longer than its timeout."""


class CutShort(Exception):
    """The node did not come to an end, through no fault of its own."""


async def attempts(
    run: Run, name: str, node: Node, data: tuple[Any, ...], state: Any, store_state: Callable[[Any], None]
) -> Any:
    """Call the node's function until it returns, and return what it did.

    Raises:
        CutShort: it was cancelled by the run.
        Exception: what the last attempt raised.
    """
    latest = state

    def remember(value: Any) -> None:
        nonlocal latest
        latest = value
        store_state(value)

    delay = 0.0
    for attempt in range(1, node.retries + 2):
        ctx: NodeContext[Any] = NodeContext(run, name, deepcopy(data), latest, attempt, remember)
        try:
            return await _once(run, node, ctx, delay)
        except CutShort:
            raise
        except Exception as error:
            if attempt > node.retries:
                raise

            if run.stopping:
                raise CutShort from error

        delay = delay_of(node.backoff, attempt)

    raise AssertionError("unreachable")


async def _once(run: Run, node: Node, ctx: NodeContext[Any], delay: float) -> Any:
    # Outside the scope on purpose: only the scope can take a cancellation out of a task group's errors.
    error: Exception | None = None
    returned = False
    output: Any = None
    with run.watching(ctx):
        try:
            with ctx.scope:
                if delay:
                    await anyio.sleep(delay)

                ctx.start_clock(node.timeout, run.stop_at)
                output = await run.caller.call(node, ctx)
                returned = True
        except Exception as raised:
            error = raised

    reason = ctx.reason
    if reason is CancelReason.TIMEOUT:
        raise NodeTimeout(f"node {ctx.node!r} took longer than its timeout of {node.timeout:g} s") from error

    if returned and reason is not CancelReason.LEASE_LOST:
        return output

    if reason is not None:
        raise CutShort from error

    assert error is not None
    raise error
