"""Enqueueing: encode, label, publish with a confirmation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count, islice
from threading import get_ident
from typing import Any, TypeVar

from .. import delays
from ..errors import EnqueueFailed, NatsJobsError, NotConfirmed, PublishRefused, UsageError
from ..jetstream import Enqueued, JetStreamApi, is_retryable, publish, publish_many
from ..wire import HeaderInput, unique_token
from ._definition import JobDef, PayloadOf
from ._destination import Destination, destination_of
from ._not_before import MAX_DELAY, due_at
from ._route import Route
from ._routes import DelayedRoute, ScheduleRoute

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
        if due is None:
            subject, block = destination.route(theirs).address(key)
            return await publish(self._connection, subject, block, data, timeout=self._timeout)

        route = await self._delayed_route(destination, due, theirs)
        subject, block = route.address(key)
        try:
            ack = await publish(self._connection, subject, block, data, timeout=self._timeout)
        except (PublishRefused, NotConfirmed) as error:
            return self._earlier(route, error, key)

        return route.confirmed(ack, key, data)

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
    ) -> list[Enqueued]:
        self._check_thread()
        destination = self._destination(_checked_target(target), subject)
        due = due_at(delay, at, _max_delay(target))
        theirs = destination.checked(headers)
        # All are encoded before the first is sent: a bad one must not leave half of them enqueued.
        data = [*map(destination.codec.encode, payloads)]
        keys = self._ids(ids, len(data))
        if due is None:
            return await self._send_many(destination.route(theirs), keys, data)

        keys = [*keys]
        try:
            route = await self._delayed_route(destination, due, theirs)
        except NotConfirmed as error:
            raise EnqueueFailed(dict.fromkeys(range(len(data)), error), len(data)) from error

        return await self._send_many_delayed(route, keys, data)

    async def _send_many(self, route: Route, keys: Iterable[bytes], data: list[bytes]) -> list[Enqueued]:
        messages = ((*route.address(key), one) for key, one in zip(keys, data, strict=True))
        stored, failures = await publish_many(self._connection, messages, timeout=self._timeout)
        if failures:
            raise EnqueueFailed(dict(sorted(failures.items())), len(data))

        return [stored[position] for position in range(len(data))]

    async def _send_many_delayed(
        self, route: DelayedRoute, keys: list[bytes], data: list[bytes]
    ) -> list[Enqueued]:
        messages = ((*route.address(key), one) for key, one in zip(keys, data, strict=True))
        stored, failures = await publish_many(self._connection, messages, timeout=self._timeout)
        for position, ack in stored.items():
            stored[position] = route.confirmed(ack, keys[position], data[position])

        for position, error in list(failures.items()):
            try:
                stored[position] = self._earlier(route, error, keys[position])
            except (PublishRefused, NotConfirmed):
                continue

            del failures[position]

        if failures:
            raise EnqueueFailed(dict(sorted(failures.items())), len(data))

        return [stored[position] for position in range(len(data))]

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

    def _earlier(self, route: DelayedRoute, error: Exception, key: bytes) -> Enqueued:
        """Return the job that waits already under the same id, if that is what the error says; else raise it."""
        earlier = route.earlier(error, key)
        if earlier is None:
            # The stream may not be any more what it was.
            self._homes.forget()
            raise error

        return earlier

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
