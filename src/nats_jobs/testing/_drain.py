"""Waiting until the workers of a processor have nothing left to do."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from .._untrusted import field_of
from ..errors import UsageError
from ..jobs import JobHandle, Processor

__all__ = ("drain",)

_INTERVAL = 0.01


@dataclass(frozen=True, slots=True)
class _State:
    """What a consumer says: how many jobs wait, how many are in hand or wait for their next attempt, how many came out."""

    waiting: int
    in_hand: int
    delivered: int


async def drain(p: Processor, *, timeout: float = 10.0) -> None:
    """Wait until every job that the workers of `p` may take is done, also those that jobs enqueue meanwhile.

    A job that was snoozed, or failed and is tried again, is waited for: give such a definition `backoff=0` in tests. So
    is a delayed one, unless the server keeps it until its time.

    Args:
        timeout: seconds.

    Raises:
        TimeoutError: it says how many are left, and of which consumers.
        UsageError: `p` has no workers.
        ApiError, NoResponders, RequestTimeout, ConnectionLost: a consumer cannot be asked.
    """
    if not p.workers:
        raise UsageError(
            "drain: no worker was started, so nothing will ever be done; await p.start(defn) first"
        )

    states: list[_State] = []
    with anyio.move_on_after(timeout):
        while True:
            before, states = states, [await _state(p, worker) for worker in p.workers]
            # They were asked one after the other: a job that is done may have enqueued one where nothing was before.
            if states == before and not any(state.waiting or state.in_hand for state in states):
                return

            await anyio.sleep(_INTERVAL)

    left = ", ".join(
        f"{state.waiting} waiting and {state.in_hand} in hand or to be tried again of {worker.defn}"
        for worker, state in zip(p.workers, states, strict=False)
        if state.waiting or state.in_hand
    )
    raise TimeoutError(f"jobs are left after {timeout:g} s: {left or 'the server has not said how many'}")


async def _state(p: Processor, worker: JobHandle[object]) -> _State:
    call = f"CONSUMER.INFO.{worker.defn.stream}.{worker.defn.consumer}"
    answer = await p.api.request(call)
    delivered = field_of(answer, "delivered", dict, call, {})
    return _State(
        waiting=field_of(answer, "num_pending", int, call, 0),
        # The server counts a job as done a moment before its worker does.
        in_hand=max(field_of(answer, "num_ack_pending", int, call, 0), len(worker.running)),
        delivered=field_of(delivered, "consumer_seq", int, call, 0),
    )
