"""What a handler is given: one delivery being performed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast

import anyio

from ..delays import id_in
from ..errors import JobCutShort
from ..jetstream import Delivery
from ..wire import Headers
from ._reasons import CancelReason
from ._tick import SCHEDULE_ID, scheduled_for

if TYPE_CHECKING:
    from ..processor import JobProcessor
    from ._definition import JobDef

__all__ = ("Fence", "Job", "JobControl", "JobWorker")

T = TypeVar("T")

_SHIELD_LIMIT = 30.0


class Fence(NamedTuple):
    """Grows with every delivery of a message: compare before you set, and a former holder cannot overwrite a later one."""

    sequence: int
    attempt: int


class JobWorker(Protocol):
    """What a job asks of the worker that performs it."""

    @property
    def defn(self) -> JobDef[Any]: ...

    @property
    def processor(self) -> object: ...

    @property
    def stopping(self) -> bool: ...

    async def wait_stopping(self) -> None: ...


class JobControl(Protocol):
    """What a job asks of the attempt behind it. A test can give a job one of its own."""

    @property
    def worker(self) -> JobWorker: ...

    @property
    def delivery(self) -> Delivery: ...

    @property
    def num_attempts(self) -> int:
        """The number of the last attempt."""
        ...

    @property
    def reason(self) -> CancelReason | None:
        """Why it was cut short; asked for in any thread."""
        ...

    def check_lease(self) -> None:
        """Find out by the clock whether the lease is still held; in another thread than the event loop's it does nothing."""

    async def extend_lease(self) -> None:
        """Return when the server has confirmed it."""

    async def publish_progress(self, done: float, total: float | None) -> None: ...


class Job(Generic[T]):
    """One delivery being performed. `payload` is decoded, of the definition's type `T`.

    Its scope is cancelled on stop (after the grace period), timeout and loss of the lease; `reason` says
    which it was from that moment on.
    """

    __slots__ = ("_control", "payload")

    def __init__(self, payload: T, control: JobControl) -> None:
        self.payload = payload
        self._control = control

    # What was delivered...

    @property
    def data(self) -> bytes:
        """The payload as it came."""
        return self._control.delivery.data

    @property
    def subject(self) -> str:
        return self._control.delivery.subject

    @property
    def headers(self) -> Headers:
        return self._control.delivery.headers

    @property
    def id(self) -> str | None:
        """The message id that it was enqueued with; None when its publisher gave none."""
        delivery = self._control.delivery
        return id_in(delivery.headers) if delivery.has_headers else None

    @property
    def stream(self) -> str:
        return self._control.delivery.stream

    @property
    def sequence(self) -> int:
        """The position of the message in its stream: the same for every attempt."""
        return self._control.delivery.sequence

    @property
    def attempt(self) -> int:
        """How often the message was delivered, this time included."""
        return self._control.delivery.attempt

    @property
    def num_attempts(self) -> int:
        """The failing attempt with this number is the last."""
        return self._control.num_attempts

    @property
    def enqueued_at(self) -> datetime:
        """When the server stored it, UTC."""
        return self._control.delivery.stored_at

    @property
    def schedule_id(self) -> str | None:
        """The id of the `Schedule` that enqueued it; None for a job that was enqueued otherwise."""
        return self._control.delivery.headers.get(SCHEDULE_ID) if self._control.delivery.has_headers else None

    @property
    def scheduled_for(self) -> datetime | None:
        """The tick of its schedule, UTC; None for a job of no schedule."""
        return scheduled_for(self._control.delivery.headers) if self._control.delivery.has_headers else None

    @property
    def pending(self) -> int:
        """How many jobs of this consumer had not been delivered yet when this one was."""
        return self._control.delivery.pending

    @property
    def fence(self) -> Fence:
        """For compare-and-set in a store of your own: (stream sequence, delivery count)."""
        return Fence(self._control.delivery.sequence, self._control.delivery.attempt)

    @property
    def defn(self) -> JobDef[T]:
        return self._control.worker.defn

    @property
    def processor(self) -> JobProcessor:
        # Only `processor/` makes processors, and no other ones.
        return cast("JobProcessor", self._control.worker.processor)

    # Being cut short...

    @property
    def reason(self) -> CancelReason | None:
        """Why the job was cut short; None as long as it was not. Set at once, also inside a shield."""
        return self._control.reason

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to stop: what takes longer than the grace period should come to an end."""
        return self._control.worker.stopping

    async def wait_stopping(self) -> None:
        """Wait until `stopping`."""
        await self._control.worker.wait_stopping()

    def check_cancelled(self) -> None:
        """Raise if the job was cut short. For handlers that run in a thread, where no cancellation can reach.

        In the event loop it also looks at the clock: after a pause of the whole process, or a call that blocked,
        the lease may be used up before anybody has noticed. Worth a call just before an effect that must not
        come late; `fence` is for those that must not at all.

        Raises:
            JobCutShort: it was; `reason` says why.
        """
        self._control.check_lease()
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
        await self._control.extend_lease()
        await anyio.lowlevel.checkpoint()

    async def progress(self, done: float, total: float | None = None) -> None:
        """Publish how far the job has got: a message with `{"done": …, "total": …}` as JSON.

        It goes to `nats_jobs.progress.<stream>.<consumer>.<sequence>`, at most once, for anyone who subscribes.
        """
        await self._control.publish_progress(done, total)

    def __repr__(self) -> str:
        return f"Job({self.stream}/{self.sequence}, attempt {self.attempt} of {self.num_attempts})"
