"""What a handler is given: one delivery being performed, and the scope it runs in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import anyio

from ..jetstream import Delivery
from ..wire import Headers
from ._definition import JobDef
from ._lease import Lease
from ._reasons import CancelReason

if TYPE_CHECKING:
    from ._processor import JobProcessor
    from ._worker import Worker

__all__ = ("Fence", "Job")

T = TypeVar("T")

_SHIELD_LIMIT = 30.0


class Fence(NamedTuple):
    """Grows with every delivery of a message: compare before you set, and a former holder cannot overwrite a later one."""

    sequence: int
    attempt: int


class Job(Generic[T]):
    """One delivery being performed. `payload` is decoded, of the definition's type `T`.

    Its scope is cancelled on stop (after the grace period), timeout and loss of the lease; `reason` says
    which it was from that moment on.
    """

    __slots__ = ("_lease", "_reason", "_scope", "_stopping", "_worker", "payload")

    def __init__(self, worker: Worker[T], lease: Lease, payload: T) -> None:
        self.payload = payload
        self._worker = worker
        self._lease = lease
        self._reason: CancelReason | None = None
        self._stopping: anyio.Event | None = None
        self._scope = anyio.CancelScope()

    # What was delivered...

    @property
    def data(self) -> bytes:
        """The payload as it came."""
        return self._delivery.data

    @property
    def subject(self) -> str:
        return self._delivery.subject

    @property
    def headers(self) -> Headers:
        return self._delivery.headers

    @property
    def id(self) -> str | None:
        """The message id that it was enqueued with; None when its publisher gave none."""
        return self._delivery.headers.get("Nats-Msg-Id") if self._delivery.has_headers else None

    @property
    def stream(self) -> str:
        return self._delivery.stream

    @property
    def sequence(self) -> int:
        """The position of the message in its stream: the same for every attempt."""
        return self._delivery.sequence

    @property
    def attempt(self) -> int:
        """How often the message was delivered, this time included."""
        return self._delivery.attempt

    @property
    def num_attempts(self) -> int:
        """The failing attempt with this number is the last."""
        return self._worker.site.limits.last_attempt()

    @property
    def enqueued_at(self) -> datetime:
        """When the server stored it, UTC."""
        return self._delivery.stored_at

    @property
    def pending(self) -> int:
        """How many jobs of this consumer had not been delivered yet when this one was."""
        return self._delivery.pending

    @property
    def fence(self) -> Fence:
        """For compare-and-set in a store of your own: (stream sequence, delivery count)."""
        return Fence(self._delivery.sequence, self._delivery.attempt)

    @property
    def defn(self) -> JobDef[T]:
        return self._worker.defn

    @property
    def processor(self) -> JobProcessor:
        return self._worker.processor

    # Being cut short...

    @property
    def reason(self) -> CancelReason | None:
        """Why the job was cut short; None as long as it was not. Set at once, also inside a shield."""
        if self._reason is None and self._scope.cancel_called:
            return CancelReason.TIMEOUT

        return self._reason

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to stop: what takes longer than the grace period should come to an end."""
        return self._worker.stopping

    async def wait_stopping(self) -> None:
        """Wait until `stopping`."""
        await self._worker.wait_stopping()

    @contextmanager
    def shield(self, seconds: float = _SHIELD_LIMIT) -> Iterator[None]:
        """Let what is in the block finish, even when the job is cut short meanwhile.

        The cancellation comes at the first `await` after the block. Look at `reason` to go on or not: after
        LEASE_LOST another worker may have the job.

        Args:
            seconds: the shield's limit; what takes longer is cancelled after all.
        """
        with anyio.move_on_after(seconds, shield=True):
            yield

    async def working(self) -> None:
        """Extend the lease now, and return when the server has confirmed it.

        Not needed with `auto_extend_ack_timeout`. When the lease was lost meanwhile, the job is being
        cancelled and this call with it.
        """
        await self._worker.leases.extend(self._lease)
        await anyio.lowlevel.checkpoint()

    async def progress(self, done: float, total: float | None = None) -> None:
        """Tell the world how far the job is: a message with `{"done": …, "total": …}` as JSON.

        It goes to `nats_jobs.progress.<stream>.<consumer>.<sequence>`, at most once, for whoever listens.
        """
        subject = f"nats_jobs.progress.{self.stream}.{self._worker.consumer}.{self.sequence}"
        text = json.dumps({"done": done, "total": total, "attempt": self.attempt})
        await self._worker.connection.publish(subject, text.encode())

    @property
    def _delivery(self) -> Delivery:
        return self._lease.delivery

    @property
    def scope(self) -> anyio.CancelScope:
        """The scope the handler runs in."""
        return self._scope

    def start_clock(self, timeout: float | None) -> None:
        """Called when the handler starts."""
        if timeout is not None:
            self._scope.deadline = anyio.current_time() + timeout

    def cut_short(self, reason: CancelReason) -> None:
        """Cancel the scope. A deadline that has already fired is a reason too, and came first."""
        if self.reason is None:
            self._reason = reason
            self._scope.deadline = math.inf
            self._scope.cancel(reason.value)

    def __repr__(self) -> str:
        return f"Job({self.stream}/{self.sequence}, attempt {self.attempt} of {self.num_attempts})"
