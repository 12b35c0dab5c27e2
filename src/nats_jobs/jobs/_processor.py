"""What starts workers and enqueues jobs, on one connection. `processor/` makes the whole `JobProcessor` of it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup
from nats.js.client import JetStreamContext

from ..dead_letters import DeadLetters
from ..delays import ScheduledJob, scheduled_jobs, streams_with_schedules
from ..errors import UsageError
from ..jetstream import Enqueued, JetStreamApi, jetstream_context
from ..wire import HeaderInput
from ._context import WorkerContext
from ._definition import JobDef, PayloadOf
from ._definition_checks import check_name
from ._destination import checked_headers
from ._emitter import Emitter
from ._enqueue_from import enqueue_parts
from ._event_stream import EventStream
from ._handle import JobHandle
from ._middleware import EnqueueRequest, MiddlewareStack
from ._producer import Producer
from ._shutdown import check_grace
from ._unresponsive import UnresponsivePolicy
from ._worker import Worker

__all__ = ("Processor", "Service")

T = TypeVar("T")


class Service(Protocol):
    """What a processor waits for, besides its workers, before its block is left."""

    @property
    def ended(self) -> anyio.Event: ...

    def ask_to_stop(self, grace: float | None = None) -> None:
        """End within `grace` seconds; default: the processor's. Returns at once; a later call can only shorten it."""


class Processor:
    """Starts workers and enqueues jobs, on one connection: a `JobProcessor` without what the higher packages add."""

    def __init__(
        self,
        api: JetStreamApi,
        group: TaskGroup,
        emitter: Emitter,
        *,
        stop_grace: float,
        patience: UnresponsivePolicy,
        enqueue_timeout: float,
        middleware: MiddlewareStack,
    ) -> None:
        self.api = api
        self.connection = api.connection
        self.stop_grace = stop_grace
        self._middleware = middleware
        self._context = WorkerContext(
            api=api,
            emitter=emitter,
            middleware=middleware,
            stop_grace=stop_grace,
            enqueue_timeout=enqueue_timeout,
            patience=patience,
            processor=self,
        )
        self._group = group
        self._emitter = emitter
        self.enqueue_timeout = enqueue_timeout
        self._producer = Producer(api, timeout=enqueue_timeout)
        self._dead_letters = DeadLetters(api)
        self._js = jetstream_context(api.connection, js_prefix=api.prefix)
        self._workers: list[Worker[Any]] = []
        self._services: list[Service] = []
        self._stopping = False

    @property
    def js(self) -> JetStreamContext:
        """nats-py's JetStream context (manager, publish, key-value) on our connection, on both backends."""
        return self._js

    @property
    def dead_letters(self) -> DeadLetters:
        """The parked jobs: browse, count, get, redrive, remove, purge."""
        return self._dead_letters

    # Performing...

    def start_soon(self, defn: JobDef[T]) -> JobHandle[T]:
        """Start a worker for `defn` and return at once.

        What goes wrong while its stream and consumer are set up, or later, is raised out of the
        processor's block.

        Raises:
            UsageError: it is not a definition, already has a worker here, or the processor was told to stop.
        """
        worker = self._new_worker(defn)
        self._group.start_soon(worker.run)
        return JobHandle(worker)

    async def start(self, defn: JobDef[T]) -> JobHandle[T]:
        """Start a worker for `defn`, and return when stream and consumer stand and the first pull is out.

        When the consumer or its stream is deleted later, the jobs in hand have lost their leases, and nothing
        is sent for them. After 2 seconds, in which others may create it again with settings of their own, the
        worker sets it up again. The processor ends with ConfigMismatch or SetupFailed when that cannot be.

        Cancelling it ends the worker.

        Raises:
            UsageError: as `start_soon`.
            ConfigMismatch, SetupFailed: the worker could not be set up. The other workers go on.
        """
        worker = self._new_worker(defn)
        try:
            await self._group.start(worker.run)
        except BaseException:
            self._workers.remove(worker)
            raise

        return JobHandle(worker)

    @property
    def workers(self) -> tuple[JobHandle[Any], ...]:
        """The definitions that were started here, and whose workers have not ended."""
        return tuple(JobHandle(worker) for worker in self._workers if not worker.ended.is_set())

    async def stop(self, *, grace: float | None = None) -> None:
        """Stop every worker and schedule, and wait until all have ended. Safe to call twice and from any task.

        Nothing can be started afterwards; enqueueing goes on working until the block is left.

        Args:
            grace: seconds that running jobs may go on, for all workers. Default: each definition's, else
                the processor's. A later call can only shorten it.
        """
        self.stop_soon(grace=grace)
        await self.wait_stopped()

    def stop_soon(self, *, grace: float | None = None) -> None:
        """Tell everything to stop, as `stop` does, without waiting."""
        check_grace("grace", grace)
        self._stopping = True
        for service in (*self._services, *self._workers):
            service.ask_to_stop(grace)

    def close(self) -> None:
        """Start nothing more. Called when the block is left."""
        self._stopping = True

    async def wait_stopped(self) -> None:
        """Wait until every worker and every schedule has ended."""
        for service in (*self._services, *self._workers):
            await service.ended.wait()

    def add_service(self, service: Service) -> None:
        """Stop `service` with the workers, and wait for it as for them."""
        self._services.append(service)
        if self._stopping:
            service.ask_to_stop(0)

    def _new_worker(self, defn: JobDef[T]) -> Worker[T]:
        if not isinstance(defn, JobDef):
            raise UsageError(f'{defn!r} is not a JobDef; build one, or put @job("STREAM") above the function')

        if self._stopping:
            raise UsageError(f"{defn!r} cannot be started: the processor was told to stop")

        for worker in self._workers:
            same = (worker.defn.stream, worker.consumer) == (defn.stream, defn.consumer)
            if same and not worker.ended.is_set():
                raise UsageError(
                    f"consumer {defn.consumer!r} of stream {defn.stream!r} already has a worker in this processor; give this "
                    "definition a durable_name of its own (consumer_config), or the first one more concurrency"
                )

        worker = Worker(defn, self._context)
        # Known before its task starts: a stop in this very moment must reach it.
        self._workers.append(worker)
        return worker

    # Enqueueing...

    async def enqueue(
        self,
        target: JobDef[T] | str,
        payload: PayloadOf[T],
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
            delay: seconds until it is performed. In a stream with `allow_msg_schedules` (nats-server 2.12) the server
                keeps the job until then; in others its workers do, and the wait is one delivery.
            at: when it is performed, an aware datetime.
            headers: names and values to go with it.
            subject: where to publish it, when the stream of the definition has several subjects.

        Raises:
            EncodeError, UsageError, BadSubject, PayloadTooLarge: bad input; nothing was sent.
            PublishRefused: the stream does not take it.
            NotConfirmed: the time is up.
        """
        send = partial(self._producer.enqueue, target, payload, id=id, delay=delay, at=at, subject=subject)
        if not self._middleware.sees_enqueues:
            return await send(headers=headers)

        request = EnqueueRequest(
            target=target,
            payloads=(payload,),
            ids=None if id is None else (id,),
            headers=checked_headers(headers),
        )
        async with self._middleware.enqueueing(request):
            stored = await send(headers=request.headers)
            request.enqueued = (stored,)

        return stored

    async def enqueue_many(
        self,
        target: JobDef[T] | str,
        payloads: Iterable[PayloadOf[T]],
        *,
        ids: Sequence[str] | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        headers: HeaderInput | None = None,
        subject: str | None = None,
        atomic: bool = False,
    ) -> list[Enqueued]:
        """Store many jobs, and return when every one is confirmed, in the order of `payloads`.

        Many are under way at a time. All are encoded before the first is sent, so bad input sends nothing.

        Args:
            ids: one for each payload; see `enqueue` for this and the rest.
            atomic: store all of them, or none: at most 1000, in a stream with `allow_atomic` (nats-server 2.12).

        Raises:
            EnqueueFailed: some were not confirmed; it says exactly which, and why. The others are stored.
            PublishRefused, PayloadTooLarge: with `atomic`; none was stored. So it is when one was stored before under its id.
            NotConfirmed: with `atomic`; none, or all, were stored. Repeating it with the same ids is safe.
            NoBatches: with `atomic`; the stream does not take batches, or cannot be looked at. Nothing was sent.
            EncodeError, UsageError, BadSubject: bad input; nothing was sent.
        """
        send = partial(
            self._producer.enqueue_many, target, ids=ids, delay=delay, at=at, subject=subject, atomic=atomic
        )
        if not self._middleware.sees_enqueues:
            return await send(payloads, headers=headers)

        request = EnqueueRequest(
            target=target, payloads=list(payloads), ids=ids, headers=checked_headers(headers)
        )
        async with self._middleware.enqueueing(request):
            request.enqueued = stored = await send(request.payloads, headers=request.headers)

        return stored

    async def enqueue_from(
        self,
        target: JobDef[T] | str,
        payloads: Iterable[PayloadOf[T]] | AsyncIterable[PayloadOf[T]],
        *,
        id_of: Callable[[Any], str] | None = None,
        headers: HeaderInput | None = None,
        subject: str | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> int:
        """Store a job for each payload of a source that may be endless, and return how many there were.

        At most 4,096 payloads are held at a time: no more are read before those are confirmed. What the source had handed
        over when it raises is stored before its error is raised on. An async generator is closed in any case. Cancelling
        leaves open which of those that were read last were stored.

        Args:
            target: a definition, or a subject.
            payloads: an iterable, or an async one.
            id_of: returns the id of a payload, so that a source that is read again is not stored again within the
                stream's duplicate window. Default: a fresh one for each. What it raises is raised on.
            headers, subject: see `enqueue`.
            on_progress: called with the number of those that are stored, now and then. What it raises is raised on.

        Raises:
            EnqueueFailed: some were not stored; it says which by their positions in the source, and nothing behind them
                was read. Those that it does not name are stored.
            EncodeError, UsageError, BadSubject: bad input among the first; nothing was sent.
        """

        async def send(part: list[PayloadOf[T]], ids: list[str] | None) -> list[Enqueued]:
            return await self.enqueue_many(target, part, ids=ids, headers=headers, subject=subject)

        return await enqueue_parts(send, payloads, id_of, on_progress)

    async def scheduled(
        self, target: JobDef[Any] | str | None = None, *, after: int = 0, limit: int = 1000
    ) -> list[ScheduledJob]:
        """Return delayed jobs whose time has not come; those of one stream in the order in which they were stored.

        In a stream with schedules these are the jobs that the server keeps. In others they lie among all jobs, of
        which one call reads at most 10,000.

        Args:
            target: a definition, or the name of a stream. Default: all streams that have schedules, and those of the
                workers of this processor.
            after: return those whose sequence is higher: that of the last one, for the next page.
            limit: return so many at most; 1 or more.

        Raises:
            UsageError: bad input.
            ApiError: there is no such stream, for instance.
            NoResponders, RequestTimeout, ConnectionLost, PermissionDenied: the server did not answer.
        """
        if after < 0 or limit < 1:
            raise UsageError(f"after is {after!r} and limit {limit!r}; 0 or more, and 1 or more, are needed")

        if target is not None:
            stream = target.stream if isinstance(target, JobDef) else target
            check_name("target", stream)
            return await scheduled_jobs(self.api, stream, after=after, limit=limit)

        if after:
            raise UsageError("after is the sequence of one stream; say of which, as target")

        streams = {*await streams_with_schedules(self.api), *(worker.defn.stream for worker in self._workers)}
        found: list[ScheduledJob] = []
        for stream in sorted(streams):
            found += await scheduled_jobs(self.api, stream, after=0, limit=limit - len(found))

        return found

    # Watching...

    def events(self) -> AbstractAsyncContextManager[EventStream]:
        """Open a stream of the events from now on: `async with p.events() as stream: async for event in stream`.

        See `EventStream` for what happens to a reader that is slow.
        """
        return self._emitter.events()
