"""How a processor is opened, and closed. Nesting order is shutdown order."""

from __future__ import annotations

import inspect
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Unpack

import anyio

from .._groups import unwrapped
from ..backoff import jittered
from ..errors import ConnectFailed, UsageError
from ..events import Event
from ..jetstream import JetStreamApi, api_prefix
from ..jobs import (
    Emitter,
    Middleware,
    MiddlewareStack,
    OnUnresponsive,
    UnresponsivePolicy,
    check_grace,
    logger,
)
from ..wire import Connection, ConnectOptions, connect
from ._link_events import LinkEvents
from ._processor import JobProcessor
from ._stop_signals import stopped_by

__all__ = ("job_processor",)

_STOP_GRACE = 30.0
_ENQUEUE_TIMEOUT = 20.0
_UNRESPONSIVE_AFTER = 5.0
_GIVE_UP_AFTER = 60.0
_MIN_CONNECT_DELAY = 0.1
_MAX_CONNECT_DELAY = 1.0


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
    wait_for_server: float = 0.0,
    middleware: Sequence[Middleware] = (),
    domain: str | None = None,
    js_prefix: str | None = None,
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
        wait_for_server: seconds for which connecting is tried again while no server can be reached. A server that
            refuses our credentials fails at once.
        middleware: what goes around every attempt and every enqueue, the outermost first; see `Middleware`.
        domain: the JetStream domain where jobs and dead letters are, when it is not that of the server we connect to.
        js_prefix: instead of `domain`, the prefix under which the account imports the API of another one.
        **options: how to connect, by the names of `nats.connect`; see `nats_jobs.wire.Options`.

    Raises:
        UsageError: an argument that cannot work.
        ConnectFailed, AuthorizationFailed: no server, or it does not accept us.
    """
    _check_arguments(
        stop_grace,
        unresponsive_after,
        give_up_after,
        enqueue_timeout,
        wait_for_server,
        on_event,
        on_unresponsive,
    )
    signals = _checked_signals(stop_signals)
    prefix = api_prefix(domain, js_prefix)
    patience = UnresponsivePolicy(unresponsive_after, give_up_after, on_unresponsive)
    stack = MiddlewareStack(middleware)
    emitter = Emitter(on_event)
    try:
        async with _connected(servers, LinkEvents(emitter), wait_for_server, options) as connection:
            with unwrapped():
                async with anyio.create_task_group() as group:
                    processor = JobProcessor(
                        JetStreamApi(connection, prefix=prefix),
                        group,
                        emitter,
                        stop_grace=stop_grace,
                        patience=patience,
                        enqueue_timeout=enqueue_timeout,
                        middleware=stack,
                    )
                    async with stopped_by(processor, signals):
                        try:
                            yield processor
                            await processor.wait_stopped()
                        finally:
                            processor.close()
    finally:
        emitter.close()


@asynccontextmanager
async def _connected(
    servers: str | Sequence[str] | None,
    listener: LinkEvents,
    wait_for_server: float,
    options: ConnectOptions,
) -> AsyncIterator[Connection]:
    async with AsyncExitStack() as stack:
        yield await _connect_patiently(
            lambda: stack.enter_async_context(connect(servers, listener=listener, **options)), wait_for_server
        )


async def _connect_patiently(
    attempt: Callable[[], Awaitable[Connection]], wait_for_server: float
) -> Connection:
    """Connect, again while there is no server. That it refuses us does not change by waiting."""
    deadline = anyio.current_time() + wait_for_server
    for tries in count():
        try:
            return await attempt()
        except ConnectFailed as error:
            wait = jittered(tries, first=_MIN_CONNECT_DELAY, most=_MAX_CONNECT_DELAY)
            if anyio.current_time() + wait > deadline:
                raise

            if not tries:
                logger.warning("%s; trying again for %g s", error, wait_for_server)

        await anyio.sleep(wait)

    raise AssertionError("unreachable")


def _check_arguments(
    stop_grace: Any,
    unresponsive_after: Any,
    give_up_after: Any,
    enqueue_timeout: Any,
    wait_for_server: Any,
    on_event: Any,
    on_unresponsive: Any,
) -> None:
    for name, seconds in (
        ("stop_grace", stop_grace),
        ("unresponsive_after", unresponsive_after),
        ("give_up_after", give_up_after),
        ("enqueue_timeout", enqueue_timeout),
        ("wait_for_server", wait_for_server),
    ):
        if seconds is None:
            raise UsageError(f"{name} is None; seconds are needed")

        check_grace(name, seconds)

    if wait_for_server == math.inf:
        raise UsageError(
            "wait_for_server is infinite; a finite number of seconds is needed, so that a processor that cannot start says so"
        )

    if not 0 < enqueue_timeout < math.inf:
        raise UsageError(f"enqueue_timeout is {enqueue_timeout!r}; seconds above 0 are needed")

    if on_event is not None and not callable(on_event):
        raise UsageError(f"on_event is {on_event!r}; a function that takes the event is needed")

    if inspect.iscoroutinefunction(on_event):
        raise UsageError(
            f"on_event is {on_event!r}, a coroutine function, which nobody would await; give a plain function, "
            "or read events in a task of your own: async with p.events() as stream"
        )

    if on_unresponsive not in ("wait", "fail"):
        raise UsageError(f"on_unresponsive is {on_unresponsive!r}; 'wait' or 'fail' is needed")


def _checked_signals(stop_signals: Any) -> tuple[signal.Signals, ...]:
    try:
        return tuple(signal.Signals(number) for number in stop_signals)
    except (TypeError, ValueError):
        raise UsageError(
            f"stop_signals is {stop_signals!r}; a list of signals is needed, such as (SIGINT, SIGTERM)"
        ) from None
