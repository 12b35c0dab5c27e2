"""Enqueueing: encode, label, publish with a confirmation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count, islice
from threading import get_ident
from typing import Any, TypeVar

from .. import delays
from ..errors import EnqueueFailed, NatsJobsError, NoBatches, NotConfirmed, UsageError
from ..jetstream import MAX_BATCH, Enqueued, JetStreamApi, is_retryable
from ..wire import HeaderInput, unique_token
from ._definition import JobDef, PayloadOf
from ._destination import Destination, destination_of
from ._not_before import MAX_DELAY, due_at
from ._route import Route
from ._routes import DelayedRoute, ScheduleRoute
from ._sending import Sender

__all__ = ("Producer",)

T = TypeVar("T")

_MAX_DESTINATIONS = 256


class Producer:
    """Puts jobs into streams."""

    def __init__(self, api: JetStreamApi, *, timeout: float) -> None:
        self._api = api
        self._connection = api.connection
        self._homes = delays.Homes(api, timeout=timeout)
        self._timeout = timeout
        self._sender = Sender(api.connection, timeout=timeout, on_failure=self._homes.forget)
        self._thread = get_ident()
        # Of its own, so that definitions do not outlive the producers that know them.
        self._destination = lru_cache(maxsize=_MAX_DESTINATIONS)(destination_of)
        # A unique stem, and a number: an id of its own for every job, at the price of a number.
        stem = unique_token().encode()
        self._fresh_ids = (b"%b%x" % (stem, number) for number in count())

    async def enqueue(
        self,
        target: JobDef[T] | str,
        payload: PayloadOf[T],
        *,
        id: str | None,
        delay: float | None,
        at: datetime | None,
        headers: HeaderInput | None,
        subject: str | None,
    ) -> Enqueued:
        self._check_thread()
        destination = self._destination(_checked_target(target), subject)
        due = due_at(delay, at, _max_delay(target))
        theirs = destination.checked(headers)
        data = destination.codec.encode(payload)
        key = next(self._fresh_ids) if id is None else _encoded_id(id)
        route = await self._route(destination, due, theirs)
        return await self._sender.send(route, (key, data))

    async def enqueue_many(
        self,
        target: JobDef[T] | str,
        payloads: Iterable[PayloadOf[T]],
        *,
        ids: Sequence[str] | None,
        delay: float | None,
        at: datetime | None,
        headers: HeaderInput | None,
        subject: str | None,
        atomic: bool,
    ) -> list[Enqueued]:
        self._check_thread()
        destination = self._destination(_checked_target(target), subject)
        due = due_at(delay, at, _max_delay(target))
        theirs = destination.checked(headers)
        # All are encoded before the first is sent: a bad one must not leave half of them enqueued.
        data = [*map(destination.codec.encode, payloads)]
        jobs = [*zip(self._ids(ids, len(data)), data, strict=True)]
        if atomic:
            _check_batch(ids, len(jobs))
            await self._check_batches(destination)

        try:
            route = await self._route(destination, due, theirs)
        except NotConfirmed as error:
            raise EnqueueFailed(dict.fromkeys(range(len(jobs)), error), len(jobs)) from error

        if atomic:
            return await self._sender.send_all_or_none(route, jobs) if jobs else []

        return await self._sender.send_many(route, jobs)

    async def _route(
        self, destination: Destination, due: datetime | None, theirs: dict[str, str | Sequence[str]]
    ) -> Route:
        return (
            destination.route(theirs) if due is None else await self._delayed_route(destination, due, theirs)
        )

    async def _check_batches(self, destination: Destination) -> None:
        """Where batches are not known, the server would store each message by itself, at once."""
        home = await self._home(destination)
        if home is None or not home.takes_batches:
            stream = home.stream if home else destination.stream or destination.subject
            raise NoBatches(stream, str(self._connection.server_info.get("version", "?")))

    async def _delayed_route(
        self, destination: Destination, due: datetime, theirs: dict[str, str | Sequence[str]]
    ) -> DelayedRoute:
        """Let the server keep the job where it can; else the workers give it back until its time."""
        home = await self._home(destination)
        wait = (due - datetime.now(UTC)).total_seconds()
        if home is not None and not home.outlasts(wait):
            raise UsageError(
                f"the job would wait for {wait:.0f} s, and stream {home.stream!r} keeps messages for {home.max_age:g} s: it would be "
                "gone before its time; give the stream a longer max_age, or allow_msg_schedules and allow_msg_ttl"
            )

        if home is not None and home.keeps_schedules:
            return ScheduleRoute(self._api, destination, home, due, theirs)

        return DelayedRoute(self._api, destination, due, theirs)

    async def _home(self, destination: Destination) -> delays.Home | None:
        try:
            return await self._homes.of(destination.stream, destination.subject)
        except NatsJobsError as error:
            if not is_retryable(error):
                raise

            raise NotConfirmed(destination.subject, self._timeout, str(error)) from error

    def _check_thread(self) -> None:
        """The confirmation arrives in the event loop of the processor: another one would never learn of it."""
        if get_ident() != self._thread:
            raise UsageError(
                "enqueue was called in another thread than the processor's; call it through the processor's event loop: "
                "in a thread of AnyIO, such as that of a plain handler, with anyio.from_thread.run(p.enqueue, …); "
                "elsewhere with a BlockingPortal, or open a processor in that thread"
            )

    def _ids(self, ids: Sequence[str] | None, wanted: int) -> Iterable[bytes]:
        if ids is None:
            return islice(self._fresh_ids, wanted)

        if len(ids) != wanted:
            raise UsageError(f"{wanted} payloads and {len(ids)} ids; give one id for each, or none")

        return [*map(_encoded_id, ids)]


def _checked_target(target: Any) -> Any:
    if not isinstance(target, JobDef | str):
        raise UsageError(f"target is {target!r}; a JobDef or a subject is needed")

    return target


def _encoded_id(id: Any) -> bytes:
    if isinstance(id, str) and id and not any(mark in id for mark in "\r\n"):
        try:
            return id.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            # Half a surrogate pair, which no encoding can carry.
            pass

    raise UsageError(f"id is {id!r}; a text of one line is needed")


def _max_delay(target: JobDef[Any] | str) -> float:
    return target.max_delay if isinstance(target, JobDef) else MAX_DELAY


def _check_batch(ids: Sequence[str] | None, size: int) -> None:
    if size > MAX_BATCH:
        raise UsageError(
            f"{size} jobs; the server stores at most {MAX_BATCH} all or none: leave out atomic=True, or send fewer"
        )

    if ids is not None and len(set(ids)) < size:
        raise UsageError("ids has one of them twice; jobs that are stored all or none need different ids")
