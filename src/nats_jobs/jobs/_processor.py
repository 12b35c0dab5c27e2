"""The processor: a connection, and the workers on it. Nesting order is shutdown order."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar, Unpack

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream
from nats.js.client import JetStreamContext

from .._groups import unwrapped
from ..errors import UsageError
from ..events import Connected, Disconnected, Event, ServerError
from ..jetstream import Enqueued, jetstream_context
from ..wire import Connection, ConnectOptions, HeaderInput, connect
from ._definition import JobDef
from ._emitter import Emitter, logger
from ._handle import JobHandle
from ._producer import Producer
from ._warden import OnUnresponsive, Patience
from ._worker import Worker, check_grace

__all__ = ("JobProcessor", "job_processor")

T = TypeVar("T")

_STOP_GRACE = 30.0
_ENQUEUE_TIMEOUT = 20.0
_UNRESPONSIVE_AFTER = 5.0
_GIVE_UP_AFTER = 60.0
# Seconds; what a job does to the loop is told by the job's own event.
_LONG_HOLD = 1.0


class JobProcessor:
    """Starts workers and enqueues jobs, on one connection. Made by `job_processor`."""

    def __init__(
        self,
        connection: Connection,
        group: TaskGroup,
        emitter: Emitter,
        *,
        stop_grace: float,
        patience: Patience,
        enqueue_timeout: float,
    ) -> None:
        self.connection = connection
        self.stop_grace = stop_grace
        self.patience = patience
        self._group = group
        self._emitter = emitter
        self.enqueue_timeout = enqueue_timeout
        self._producer = Producer(connection, timeout=enqueue_timeout)
        self._js = jetstream_context(connection)
        self._workers: list[Worker[Any]] = []
        self._stopping = False

    @property
    def js(self) -> JetStreamContext:
        """nats-py's JetStream context (manager, publish, key-value) on our connection, on both backends."""
        return self._js

    # Performing...

    def start_soon(self, defn: JobDef[T]) -> JobHandle[T]:
        """Start a worker for `defn` and return at once.

        What goes wrong while its stream and consumer are set up, or later, is raised out of the
        processor's block.

        Raises:
            UsageError: it is no definition, is running here already, or the processor was told to stop.
        """
        worker = self._hire(defn)
        self._group.start_soon(worker.run)
        return JobHandle(worker)

    async def start(self, defn: JobDef[T]) -> JobHandle[T]:
        """Start a worker for `defn`, and return when stream and consumer stand and the first pull is out.

        Cancelling it ends the worker.

        Raises:
            UsageError: as `start_soon`.
            ConfigMismatch, SetupFailed: the worker could not be set up. The other workers go on.
        """
        worker = self._hire(defn)
        try:
            await self._group.start(worker.run)
        except BaseException:
            self._workers.remove(worker)
            raise

        return JobHandle(worker)

    async def stop(self, *, grace: float | None = None) -> None:
        """Stop every worker, and wait until all have ended. Safe to call twice and from any task.

        No worker can be started afterwards; enqueueing goes on working until the block is left.

        Args:
            grace: seconds that running jobs may go on, for all workers. Default: each definition's, else
                the processor's. A later call can only shorten it.
        """
        self.stop_soon(grace=grace)
        await self.wait_stopped()

    def stop_soon(self, *, grace: float | None = None) -> None:
        """Tell every worker to stop, as `stop` does, without waiting."""
        check_grace("grace", grace)
        self._stopping = True
        for worker in self._workers:
            worker.ask_to_stop(grace)

    def close(self) -> None:
        """Start nothing more. Called when the block is left."""
        self._stopping = True

    async def wait_stopped(self) -> None:
        """Wait until every worker has ended."""
        for worker in list(self._workers):
            await worker.ended.wait()

    def _hire(self, defn: JobDef[T]) -> Worker[T]:
        if not isinstance(defn, JobDef):
            raise UsageError(f"{defn!r} is no JobDef; build one, or put @job(stream=…) above the function")

        if self._stopping:
            raise UsageError(f"{defn!r} cannot be started: the processor was told to stop")

        for worker in self._workers:
            same = (worker.defn.stream, worker.consumer) == (defn.stream, defn.consumer)
            if same and not worker.ended.is_set():
                raise UsageError(
                    f"consumer {defn.consumer!r} of stream {defn.stream!r} is being worked on here already; give this "
                    "definition a durable_name of its own (consumer_config), or more concurrency to the first"
                )

        worker = Worker(defn, self, self.connection, self._emitter)
        # In the books before its task starts: a stop in this very moment must reach it.
        self._workers.append(worker)
        return worker

    # Enqueueing...

    async def enqueue(
        self,
        target: JobDef[T] | str,
        payload: T,
        *,
        id: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        headers: HeaderInput | None = None,
        subject: str | None = None,
    ) -> Enqueued:
        """Store a job, and return when the server has confirmed it.

        Repeated with the same id for `enqueue_timeout` seconds (default 20) while the server cannot store
        it: a leader election alone takes 5 to 7. Cancelling leaves open whether it was stored.

        Args:
            target: a definition, or a subject.
            payload: encoded with the definition's codec; MSGPACK for a subject.
            id: a second job with the same id inside the stream's duplicate window (2 minutes by default) is
                not stored. Default: a fresh one.
            delay: seconds until it is performed; the wait is one delivery.
            at: when it is performed, an aware datetime.
            headers: names and values to go with it.
            subject: where to publish it, when the stream of the definition has several subjects.

        Raises:
            EncodeError, UsageError, BadSubject, PayloadTooLarge: bad input; nothing was sent.
            PublishRefused: the stream does not take it.
            NotConfirmed: the time is up.
        """
        return await self._producer.enqueue(
            target, payload, id=id, delay=delay, at=at, headers=headers, subject=subject
        )

    async def enqueue_many(
        self,
        target: JobDef[T] | str,
        payloads: Iterable[T],
        *,
        ids: Sequence[str] | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        headers: HeaderInput | None = None,
        subject: str | None = None,
    ) -> list[Enqueued]:
        """Store many jobs, and return when every one is confirmed, in the order of `payloads`.

        Many are under way at a time. All are encoded before the first is sent, so bad input sends nothing.

        Args:
            ids: one for each payload; see `enqueue` for this and the rest.

        Raises:
            EnqueueFailed: some were not confirmed; it says exactly which, and why. The others are stored.
            EncodeError, UsageError, BadSubject: bad input; nothing was sent.
        """
        return await self._producer.enqueue_many(
            target, payloads, ids=ids, delay=delay, at=at, headers=headers, subject=subject
        )

    # Watching...

    def events(self) -> AbstractAsyncContextManager[MemoryObjectReceiveStream[Event]]:
        """Open a stream of events: `async with p.events() as stream: async for event in stream`.

        It has the events from now on and ends with the processor. It buffers 4096; a reader that is slower
        loses the newest, and a warning is logged.
        """
        return self._emitter.events()


@asynccontextmanager
async def job_processor(
    servers: str | Sequence[str] | None = None,
    *,
    stop_signals: Iterable[int] = (),
    stop_grace: float = _STOP_GRACE,
    on_event: Callable[[Event], object] | None = None,
    on_unresponsive: OnUnresponsive = "wait",
    unresponsive_after: float = _UNRESPONSIVE_AFTER,
    give_up_after: float = _GIVE_UP_AFTER,
    enqueue_timeout: float = _ENQUEUE_TIMEOUT,
    **options: Unpack[ConnectOptions],
) -> AsyncIterator[JobProcessor]:
    """Connect to NATS, and perform and enqueue jobs inside the block.

    Leaving the block waits for the workers, as a nursery does; an exception in it, or a cancellation
    around it, ends them: their jobs are cancelled and handed back. Then the connection is closed. A
    failure of a worker that cannot be retried cancels the block and is raised out of it; a failure that
    is alone comes as itself, several as an `ExceptionGroup`.

    Args:
        servers: URL or list of URLs; default `$NATS_URL`, else nats://127.0.0.1:4222.
        stop_signals: for these signals `stop()` is called, and for a second one `stop(grace=0)`. Main thread only.
        stop_grace: seconds that running jobs may go on after a stop, unless their definition says otherwise.
        on_event: called with every event, in the event loop; must return at once.
        on_unresponsive: what to do about a job that goes on for `unresponsive_after` seconds after it was cut
            short, besides reporting it: `wait`, or `fail`, which ends the processor with `JobNotResponding`.
        give_up_after: seconds that a stop waits for such a job before it ends the processor the same way.
        enqueue_timeout: seconds for which an enqueue, or the set-up of a worker, is repeated before it fails.
        **options: how to connect, by the names of `nats.connect`; see `nats_jobs.wire.Options`.

    Raises:
        UsageError: an argument that cannot work.
        ConnectFailed, AuthorizationFailed: no server, or it does not accept us.
    """
    _check_arguments(
        stop_grace, unresponsive_after, give_up_after, enqueue_timeout, on_event, on_unresponsive
    )
    signals = _checked_signals(stop_signals)
    patience = Patience(unresponsive_after, give_up_after, on_unresponsive)
    emitter = Emitter(on_event)
    try:
        async with connect(servers, watcher=_LinkEvents(emitter), **options) as connection:
            with unwrapped():
                async with anyio.create_task_group() as group:
                    processor = JobProcessor(
                        connection,
                        group,
                        emitter,
                        stop_grace=stop_grace,
                        patience=patience,
                        enqueue_timeout=enqueue_timeout,
                    )
                    async with _stopped_by(processor, signals):
                        try:
                            yield processor
                            await processor.wait_stopped()
                        finally:
                            processor.close()
    finally:
        emitter.close()


@asynccontextmanager
async def _stopped_by(processor: JobProcessor, signals: tuple[signal.Signals, ...]) -> AsyncIterator[None]:
    if not signals:
        yield
        return

    async with anyio.create_task_group() as group:
        with anyio.open_signal_receiver(*signals) as received:

            async def obey() -> None:
                grace: float | None = None
                async for number in received:
                    logger.info(
                        "%s: stopping%s", signal.Signals(number).name, " at once" if grace == 0 else ""
                    )
                    processor.stop_soon(grace=grace)
                    grace = 0

            group.start_soon(obey)
            yield
            group.cancel_scope.cancel("the processor has ended")


class _LinkEvents:
    """Turns what the connection tells into events and log lines."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def link_up(self, server: str, reconnects: int) -> None:
        if reconnects:
            logger.info("connected to %s again", server)

        self._emitter.emit(Connected(server=server, reconnects=reconnects))

    def link_down(self, server: str, why: str) -> None:
        logger.warning("the connection to %s was lost (%s); reconnecting", server, why)
        self._emitter.emit(Disconnected(server=server, why=why))

    def server_error(self, server: str, text: str) -> None:
        logger.warning("%s says: %s", server, text)
        self._emitter.emit(ServerError(server=server, text=text))

    def loop_held(self, seconds: float) -> None:
        if seconds < _LONG_HOLD:
            return

        logger.warning("the event loop was held up for %.1f s; a blocking call in a job?", seconds)


def _check_arguments(
    stop_grace: Any,
    unresponsive_after: Any,
    give_up_after: Any,
    enqueue_timeout: Any,
    on_event: Any,
    on_unresponsive: Any,
) -> None:
    for name, seconds in (
        ("stop_grace", stop_grace),
        ("unresponsive_after", unresponsive_after),
        ("give_up_after", give_up_after),
        ("enqueue_timeout", enqueue_timeout),
    ):
        if seconds is None:
            raise UsageError(f"{name} is None; seconds are needed")

        check_grace(name, seconds)

    if not 0 < enqueue_timeout < math.inf:
        raise UsageError(f"enqueue_timeout is {enqueue_timeout!r}; seconds above 0 are needed")

    if on_event is not None and not callable(on_event):
        raise UsageError(f"on_event is {on_event!r}; a function that takes the event is needed")

    if on_unresponsive not in ("wait", "fail"):
        raise UsageError(f"on_unresponsive is {on_unresponsive!r}; 'wait' or 'fail' is needed")


def _checked_signals(stop_signals: Any) -> tuple[signal.Signals, ...]:
    try:
        return tuple(signal.Signals(number) for number in stop_signals)
    except (TypeError, ValueError):
        raise UsageError(
            f"stop_signals is {stop_signals!r}; several are needed, such as (SIGINT, SIGTERM)"
        ) from None
