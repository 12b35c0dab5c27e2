"""A job to call a handler with, where there is neither a server nor a worker."""

from __future__ import annotations

import math
import time
from typing import Any, TypeVar, Unpack, cast

import anyio

from .._clock import Clock, running_clock
from ..errors import JobTimeout
from ..jetstream import Delivery
from ..jobs import CancelReason, HandlerThread, Job, JobDef, detach, finish
from ._connection import ConfirmingConnection
from ._delivery import DeliveryOptions, made_up_delivery
from ._no_processor import given

__all__ = ("FakeJob", "fake_job")

T = TypeVar("T")


class FakeJob(Job[T]):
    """A `Job` made by `fake_job`. All that a handler may do with a job works; here is what a test may do with it."""

    __slots__ = ("_fake",)

    def __init__(self, payload: T, control: _FakeControl) -> None:
        super().__init__(payload, control)
        self._fake = control

    async def perform(self) -> object:
        """Call the handler as a worker would, and return what it returned; a plain function is called in a thread.

        `run_in="process"` has no effect but that the handler is given a `DetachedJob`.

        Raises:
            JobTimeout: the `timeout` of the definition was over, and the handler ended for that.
            JobCutShort: `cut_short` was called, and the handler ended for that.
            Exception: what the handler raised, Retry, Snooze and Reject too.
        """
        return await self._fake.perform(self)

    def stop(self) -> None:
        """Make `stopping` true, as when the worker was told to stop. The job may go on, as in its grace period."""
        self._fake.worker.stop()

    def cut_short(self, reason: CancelReason = CancelReason.STOP) -> None:
        """Cancel the handler, when it is being performed; `reason` is what `job.reason` says from now on."""
        self._fake.cut_short(reason)

    @property
    def reported(self) -> tuple[tuple[float, float | None], ...]:
        """What the handler told with `job.progress`: (done, total) of each."""
        return tuple(self._fake.reported)

    @property
    def extensions(self) -> int:
        """How often the handler called `job.working`."""
        return self._fake.extensions


def fake_job(
    defn: JobDef[T], payload: Any, *, processor: object = None, **options: Unpack[DeliveryOptions]
) -> FakeJob[T]:
    """Return a job for a test of a handler: `await fake_job(ship, order).perform()`.

    Args:
        defn: the definition. The payload is encoded and decoded with its codec, so that the handler is given what
            it would be given by a worker: a list for a tuple, for instance.
        payload: as for `enqueue`.
        processor: what `job.processor` is, for a handler that enqueues: anything with the methods that it calls.
        **options: see `DeliveryOptions`: `attempt=`, `id=`, `headers=`, `subject=`, `sequence=`, `enqueued_at=`, `pending=`.

    Raises:
        UsageError, EncodeError, BadSubject: what `enqueue` would refuse.
    """
    delivery = made_up_delivery(defn, payload, ConfirmingConnection(), **options)
    return FakeJob(cast(T, defn.encoder.decode(delivery.data)), _FakeControl(defn, delivery, processor))


class _FakeWorker:
    """What a job asks of its worker (`JobWorker`)."""

    def __init__(self, defn: JobDef[Any], processor: object) -> None:
        self.defn = defn
        self.processor = given(processor)
        self._stopping = anyio.Event()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    async def wait_stopping(self) -> None:
        await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()


class _FakeControl:
    """What a job asks of its attempt (`JobControl`)."""

    def __init__(self, defn: JobDef[Any], delivery: Delivery, processor: object) -> None:
        self.worker = _FakeWorker(defn, processor)
        self.delivery = delivery
        self.num_attempts = defn.num_attempts
        self.reported: list[tuple[float, float | None]] = []
        self.extensions = 0
        self._reason: CancelReason | None = None
        self._scope: anyio.CancelScope | None = None
        self._clock: Clock = time.monotonic
        self._times_out_at = math.inf

    @property
    def reason(self) -> CancelReason | None:
        if self._reason is None and self._clock() >= self._times_out_at:
            return CancelReason.TIMEOUT

        return self._reason

    def check_lease(self) -> None:
        """A job of a test keeps its lease."""

    async def extend_lease(self) -> None:
        self.extensions += 1

    async def publish_progress(self, done: float, total: float | None) -> None:
        self.reported.append((done, total))

    def cut_short(self, reason: CancelReason) -> None:
        if self.reason is None:
            self._reason = reason
            if self._scope is not None:
                self._scope.cancel(reason.text)

    async def perform(self, job: FakeJob[Any]) -> object:
        timeout = self.worker.defn.timeout
        self._clock = running_clock()
        returned: object = None
        with anyio.CancelScope() as self._scope:
            if timeout is not None:
                self._times_out_at = self._scope.deadline = anyio.current_time() + timeout

            if self._reason is not None:
                self._scope.cancel(self._reason.text)

            returned = await _call(self.worker.defn, job)

        if self.reason is CancelReason.TIMEOUT:
            assert timeout is not None
            raise JobTimeout(job.stream, job.sequence, timeout)

        if self._scope.cancelled_caught:
            job.check_cancelled()

        return returned


async def _call(defn: JobDef[Any], job: FakeJob[Any]) -> object:
    perform: Any = defn.perform
    if defn.is_async:
        returned = await perform(job)
    else:
        argument = detach(job) if defn.run_in == "process" else job
        returned = await HandlerThread(argument, perform).run(anyio.CapacityLimiter(1))

    return await finish(defn, returned)
