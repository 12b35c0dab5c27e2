"""`Producer`: what a processor does to enqueue, as plain methods."""

from __future__ import annotations

import atexit
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple, Unpack
from weakref import WeakSet

from anyio import NoEventLoopError
from anyio.lowlevel import current_token

from ..errors import NatsJobsError, UsageError
from ..events import Event
from ..jobs import Enqueued, JobDef, Middleware, PayloadOf
from ..processor import JobProcessor, job_processor
from ..wire import ConnectOptions, HeaderInput
from ._background import Background, closed_error

__all__ = ("Producer",)

T = TypeVar("T")
Args = TypeVarTuple("Args")
_ENQUEUE_TIMEOUT = 20.0


class Producer:
    """Enqueues jobs from code that has no event loop. Any number of threads may use it at once.

    It connects when the first job is enqueued, in a thread of its own, and stays connected until it is closed: by
    leaving its `with` block, by `close()`, or when the program ends. A connection that has ended for good, because the
    server refuses our credentials now, is an error once, and made anew by the next call. A child process that was
    forked makes a connection of its own, so a producer may be a global of a module that is loaded before forking.

    Args:
        servers: URL or list of URLs; default `$NATS_URL`, else nats://127.0.0.1:4222.
        backend: the event loop, `asyncio` or `trio`.
        enqueue_timeout, wait_for_server, middleware, on_event, domain, js_prefix, **options: as for `job_processor`.
            Middleware and `on_event` are called in the producer's own thread.

    Raises:
        UsageError: from the first call, when an argument cannot work.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        backend: str = "asyncio",
        enqueue_timeout: float = _ENQUEUE_TIMEOUT,
        wait_for_server: float = 0.0,
        middleware: Sequence[Middleware] = (),
        on_event: Callable[[Event], object] | None = None,
        domain: str | None = None,
        js_prefix: str | None = None,
        **options: Unpack[ConnectOptions],
    ) -> None:
        self._backend = backend
        self._enqueue_timeout = enqueue_timeout
        self._open_processor: Callable[[], AbstractAsyncContextManager[JobProcessor]] = partial(
            job_processor,
            servers,
            enqueue_timeout=enqueue_timeout,
            wait_for_server=wait_for_server,
            middleware=middleware,
            on_event=on_event,
            domain=domain,
            js_prefix=js_prefix,
            **options,
        )
        self._closed = False
        self._background: Background | None = None
        self._opening = Lock()
        _producers.add(self)

    def enqueue(
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
        """Store a job, and return when the server has confirmed it: `JobProcessor.enqueue` says more.

        Ctrl-C, or another exception in this thread, leaves open whether it was stored.

        Raises:
            EncodeError, UsageError, BadSubject, PayloadTooLarge: bad input; nothing was sent. Also a producer that was
                closed, and a call in the thread of an event loop, which would stand still meanwhile.
            ConnectFailed, AuthorizationFailed: there is no connection; nothing was sent.
            PublishRefused, NotConfirmed: as for `JobProcessor.enqueue`.
        """
        background = self._current()
        send = partial(
            background.processor.enqueue, id=id, delay=delay, at=at, headers=headers, subject=subject
        )
        return background.call(send, target, payload)

    def enqueue_many(
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
        """Store many jobs, and return when every one is confirmed: `JobProcessor.enqueue_many` says more.

        `payloads` are read in this thread. Raises what `enqueue` raises, and EnqueueFailed and NoBatches.
        """
        background = self._current()
        send = partial(
            background.processor.enqueue_many,
            ids=ids,
            delay=delay,
            at=at,
            headers=headers,
            subject=subject,
            atomic=atomic,
        )
        # A cursor of a database, for instance, belongs to the thread that has opened it.
        return background.call(send, target, list(payloads))

    def run(self, function: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args) -> T:
        """Await what a job that was enqueued offers: `producer.run(later.cancel)`, `producer.run(later.reschedule, at)`.

        Raises:
            UsageError: as `enqueue`.
            BaseException: what the function raises.
        """
        return self._current().call(function, *args)

    def close(self) -> None:
        """Wait for the calls of other threads, for `enqueue_timeout` seconds at most, and disconnect. Safe to call twice.

        Raises:
            NatsJobsError: the connection has ended for good, and no call has said so yet.
        """
        with self._opening:
            self._closed = True
            background, self._background = self._background, None

        _producers.discard(self)
        if background is not None:
            background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not connected" if self._background is None else "connected"
        return f"<Producer {state}>"

    def _current(self) -> Background:
        _check_no_event_loop()
        with self._opening:
            if self._closed:
                raise closed_error()

            ended, self._background = self._background, None
            if ended is not None and not ended.has_ended:
                self._background = ended
            else:
                if ended is not None:
                    _close_quietly(ended)

                self._background = Background(self._open_processor, self._backend, self._enqueue_timeout)

            return self._background

    def _begin_anew(self) -> object:
        left_behind = (self._background, self._opening)
        self._background = None
        self._opening = Lock()
        return left_behind


_producers: WeakSet[Producer] = WeakSet()
# A child process has copies of the event loops of its parent, but not the threads that drive them. Both processes share
# what the system keeps for a loop (its epoll), so a copy is neither used nor cleaned up: that would deafen the parent.
_of_the_parent: list[object] = []


def _after_fork() -> None:
    _of_the_parent.extend([producer._begin_anew() for producer in _producers])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_all() -> None:
    for producer in list(_producers):
        producer.close()


def _close_quietly(background: Background) -> None:
    try:
        background.close()
    except NatsJobsError:
        # Its calls have said so, or the next one finds the same.
        pass


def _check_no_event_loop() -> None:
    try:
        current_token()
    except NoEventLoopError:
        return

    raise UsageError(
        "a Producer was called in the thread of an event loop, which would stand still; there, await p.enqueue of a "
        "job_processor, or call the producer in another thread: await anyio.to_thread.run_sync(producer.enqueue, …)"
    )
