"""What a handler is given: one delivery being performed, and the scope it runs in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import get_ident
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import anyio

from ..errors import JobCutShort, JobNotResponding
from ..jetstream import Delivery
from ..wire import Headers
from ._definition import JobDef
from ._lease import Lease
from ._not_before import was_delayed
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

    __slots__ = (
        "_lease",
        "_on_abandoned",
        "_reason",
        "_scope",
        "_times_out_at",
        "_worker",
        "abandoned",
        "payload",
    )

    def __init__(self, worker: Worker[T], lease: Lease, payload: T, scope: anyio.CancelScope) -> None:
        self.payload = payload
        self._worker = worker
        self._lease = lease
        self._reason: CancelReason | None = None
        self._scope = scope
        self._times_out_at = math.inf
        self._on_abandoned: Callable[[str], None] | None = None
        self.abandoned: JobNotResponding | None = None

    # What was delivered...

    @property
    def data(self) -> bytes:
        """The payload as it came."""
        return self.delivery.data

    @property
    def subject(self) -> str:
        return self.delivery.subject

    @property
    def headers(self) -> Headers:
        return self.delivery.headers

    @property
    def id(self) -> str | None:
        """The message id that it was enqueued with; None when its publisher gave none."""
        return self.delivery.headers.get("Nats-Msg-Id") if self.delivery.has_headers else None

    @property
    def stream(self) -> str:
        return self.delivery.stream

    @property
    def sequence(self) -> int:
        """The position of the message in its stream: the same for every attempt."""
        return self.delivery.sequence

    @property
    def attempt(self) -> int:
        """How often the message was delivered, this time included."""
        return self.delivery.attempt

    @property
    def num_attempts(self) -> int:
        """The failing attempt with this number is the last."""
        return self._worker.site.limits.last_attempt(delayed=was_delayed(self.delivery))

    @property
    def enqueued_at(self) -> datetime:
        """When the server stored it, UTC."""
        return self.delivery.stored_at

    @property
    def pending(self) -> int:
        """How many jobs of this consumer had not been delivered yet when this one was."""
        return self.delivery.pending

    @property
    def fence(self) -> Fence:
        """For compare-and-set in a store of your own: (stream sequence, delivery count)."""
        return Fence(self.delivery.sequence, self.delivery.attempt)

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
        if self._reason is None and self._timed_out():
            return CancelReason.TIMEOUT

        return self._reason

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to stop: what takes longer than the grace period should come to an end."""
        return self._worker.stopping

    async def wait_stopping(self) -> None:
        """Wait until `stopping`."""
        await self._worker.wait_stopping()

    def check_cancelled(self) -> None:
        """Raise if the job was cut short. For handlers that run in a thread, where no cancellation can reach.

        In the event loop it also looks at the clock: after a pause of the whole process, or a call that blocked,
        the lease may be used up before anybody has noticed. Worth a call just before an effect that must not
        come late; `fence` is for those that must not at all.

        Raises:
            JobCutShort: it was; `reason` says why.
        """
        if get_ident() == self._worker.thread:
            self.goes_on(self._worker.clock())

        reason = self.reason
        if reason is not None:
            raise JobCutShort(self.stream, self.sequence, reason.text)

    @contextmanager
    def shield(self, seconds: float = _SHIELD_LIMIT) -> Iterator[None]:
        """Let what is in the block finish, even when the job is cut short meanwhile.

        The cancellation comes at the first `await` outside the block. A loop that awaits only inside of it
        would never be cancelled: put an `await anyio.lowlevel.checkpoint()` between two blocks, or look at
        `reason`. After LEASE_LOST another worker may have the job.

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
        """Publish how far the job has got: a message with `{"done": …, "total": …}` as JSON.

        It goes to `nats_jobs.progress.<stream>.<consumer>.<sequence>`, at most once, for anyone who subscribes.
        """
        subject = f"nats_jobs.progress.{self.stream}.{self._worker.consumer}.{self.sequence}"
        text = json.dumps(
            {"done": done, "total": total, "attempt": self.attempt, "consumer": self._worker.site.token}
        )
        await self._worker.connection.publish(subject, text.encode())

    # For the worker...

    @property
    def delivery(self) -> Delivery:
        """The delivery being performed."""
        return self._lease.delivery

    @property
    def lease(self) -> Lease:
        """Our right to perform it."""
        return self._lease

    @property
    def scope(self) -> anyio.CancelScope:
        """The scope the handler runs in."""
        return self._scope

    def start_clock(self, timeout: float | None) -> None:
        """Called when the handler starts."""
        if timeout is not None:
            self._scope.deadline = anyio.current_time() + timeout
            self._times_out_at = self._scope.deadline

    def _timed_out(self) -> bool:
        if self._times_out_at == math.inf:
            return False

        # Not only when the scope was cancelled for it: a handler that blocks the event loop past its timeout is
        # late, although nothing could cancel it.
        return self._worker.clock() >= self._times_out_at or self._cancel_called()

    def _cancel_called(self) -> bool:
        try:
            return self._scope.cancel_called
        except RuntimeError:
            # Trio answers this in its own thread only; here a handler asks in another.
            return False

    def cut_short(self, reason: CancelReason) -> None:
        """Cancel the scope. A deadline that has already fired is a reason too, and came first."""
        if self.reason is None:
            self._reason = reason
            self._scope.deadline = math.inf
            self._scope.cancel(reason.text)

    def when_abandoned(self, callback: Callable[[str], None]) -> None:
        """Have `callback` called, with the reason as text, when the job is given up."""
        self._on_abandoned = callback

    def abandon(self, error: JobNotResponding) -> None:
        """Give the job up: `error` is raised in its place as soon as that is possible."""
        self.abandoned = error
        if self._on_abandoned is not None:
            self._on_abandoned(str(error))

    def goes_on(self, now: float) -> None:
        """The handler takes a step. After a pause it must not do so believing that the job is still its own."""
        if now >= self._lease.trusted_until:
            self._worker.leases.is_held(self._lease)

    def gave_way(self) -> None:
        """The handler waits for something: another job may start."""
        self._worker.gave_way()

    def held_the_loop(self, seconds: float) -> None:
        """One step of the handler took too long."""
        self._worker.loop_held(self, seconds)

    def __repr__(self) -> str:
        return f"Job({self.stream}/{self.sequence}, attempt {self.attempt} of {self.num_attempts})"
