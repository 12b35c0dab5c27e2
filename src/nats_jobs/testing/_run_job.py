"""One attempt in a test: everything that a worker does with a delivery, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, Unpack, cast

import anyio

from .._clock import running_clock
from ..events import DeadLettered, Error, Event, Interrupted as InterruptedEvent
from ..jetstream import JetStreamApi
from ..jobs import (
    Cancelled,
    CancelReason,
    Done,
    Ending,
    Failed,
    Interrupted,
    JobDef,
    Lost,
    Middleware,
    MiddlewareStack,
    Rehearsal,
    Rejected,
    Snoozed,
    check_grace,
)
from ..wire import Connection
from ._connection import ConfirmingConnection
from ._delivery import DeliveryOptions, made_up_delivery
from ._no_processor import given

__all__ = ("Outcome", "OutcomeKind", "run_job")

T = TypeVar("T")

OutcomeKind: TypeAlias = Literal[
    "completed", "retried", "snoozed", "interrupted", "dead_lettered", "cancelled", "lost"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended."""

    kind: OutcomeKind
    """`completed`; `retried`: it failed, and is tried again; `snoozed`; `interrupted`: by a stop, and delivered again at
    once; `dead_lettered`: never tried again, also where the definition drops such jobs; `cancelled`; `lost`: the lease."""

    delay: float | None
    """Seconds until it is delivered again; None when it is not, or when that is up to the server."""

    error: Exception | None
    """What the handler raised, or `JobTimeout`, `DecodeError`, `Reject`…; None when nothing failed."""

    reason: str | None
    """Of a dead letter: `exhausted`, `rejected`, `undecodable`, …; else None."""

    reported: tuple[tuple[float, float | None], ...]
    """What the handler told with `job.progress`: (done, total) of each."""

    events: tuple[Event, ...]
    """What a processor's `on_event` would have been told."""


async def run_job(
    defn: JobDef[T],
    payload: Any,
    *,
    stop_after: float | None = None,
    cancel_after: float | None = None,
    lose_lease_after: float | None = None,
    stop_grace: float = 30.0,
    processor: object = None,
    middleware: Sequence[Middleware] = (),
    **options: Unpack[DeliveryOptions],
) -> Outcome:
    """Perform one attempt as a worker does, without a server: decoding, timeout, lease and ending are the real ones.

    Nothing is delivered again: call it with `attempt=2` for the next one. The handler's time is the event loop's, so a
    virtual clock makes an hour short.

    Args:
        defn: the definition.
        payload: as for `enqueue`.
        stop_after: seconds after which the worker is told to stop.
        cancel_after: seconds after which the job is cancelled on request.
        lose_lease_after: seconds after which another worker has the job.
        stop_grace: seconds that the job may go on after the stop, unless its definition says otherwise.
        processor: what `job.processor` is: anything with the methods that the handler calls.
        middleware: as for `job_processor`.
        **options: of the delivery, as for `fake_job`: `attempt=`, `headers=`, `id=`, …

    Raises:
        UsageError, EncodeError, BadSubject: what `enqueue` or `job_processor` would refuse.
        BaseException: what the handler raised, when it is not an Exception: it ends a processor, too.
    """
    for name, seconds in (
        ("stop_after", stop_after),
        ("cancel_after", cancel_after),
        ("lose_lease_after", lose_lease_after),
        ("stop_grace", stop_grace),
    ):
        check_grace(name, seconds)

    connection = ConfirmingConnection()
    delivery = made_up_delivery(defn, payload, connection, running_clock()(), **options)
    events: list[Event] = []
    grace = stop_grace if defn.stop_grace is None else defn.stop_grace
    api = JetStreamApi(cast(Connection, connection))
    rehearsal = Rehearsal(defn, api, given(processor), events.append)
    await rehearsal.run(
        delivery,
        MiddlewareStack(middleware),
        *_after(stop_after, partial(rehearsal.stop, grace)),
        *_after(cancel_after, partial(rehearsal.cut_short, CancelReason.CANCELLED)),
        *_after(lose_lease_after, rehearsal.lose_lease),
    )
    return _outcome(rehearsal.ending, connection, tuple(events))


def _after(
    seconds: float | None, action: Callable[[], Coroutine[Any, Any, None]]
) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    if seconds is None:
        return []

    async def later() -> None:
        await anyio.sleep(seconds)
        await action()

    return [later]


_KINDS: dict[type[Ending], OutcomeKind] = {
    Done: "completed",
    Failed: "retried",
    Snoozed: "snoozed",
    Rejected: "dead_lettered",
    Interrupted: "interrupted",
    Cancelled: "cancelled",
    Lost: "lost",
}


def _outcome(ending: Ending, connection: ConfirmingConnection, events: tuple[Event, ...]) -> Outcome:
    parked = next((event for event in events if isinstance(event, DeadLettered)), None)
    kind = _KINDS[type(ending)] if parked is None else "dead_lettered"
    return Outcome(
        kind=kind,
        delay=_delay(events) if kind in ("retried", "snoozed", "interrupted") else None,
        error=ending.error if isinstance(ending, Failed | Rejected) else None,
        reason=None if parked is None else parked.reason,
        reported=connection.reported,
        events=events,
    )


def _delay(events: tuple[Event, ...]) -> float | None:
    for event in reversed(events):
        if isinstance(event, Error):
            return event.backoff

        if isinstance(event, InterruptedEvent):
            return event.delay

    return None
