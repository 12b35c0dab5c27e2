"""Publishing with the server's confirmation: one message, or many at a time.

While a leader is elected the server answers 503 for 5 to 7 seconds (seen on 2.15), so a publish is
repeated, with the same message id, until its time is up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import anyio

from ..backoff import jittered
from ..errors import (
    ConnectionLost,
    NatsJobsError,
    NoResponders,
    NotConfirmed,
    PublishRefused,
    RequestTimeout,
)
from ..wire import Connection, Msg, Reply, answer_of

__all__ = ("Enqueued", "Publication", "publish", "publish_many")

# What a leader election, an overload, or a copy of the same message under way answer: worth repeating.
_PASSING_CODES = frozenset((10008, 10023, 10158, 10163, 10167))
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0
# Seconds for one try. A core subscriber on the subject hides the 503: then there is only silence (nats.go issue 1781).
_ONE_TRY = 5.0
# What may be unanswered at a time: enough to keep a distant server busy, and no gigabytes.
_IN_FLIGHT = 4096
_BYTES_IN_FLIGHT = 4 * 1024 * 1024


# A confirmation as nearly all of them are; the others are read as JSON, which takes four times as long.
_STORED = re.compile(rb'\{"stream":"([^"\\]+)", ?"seq":(\d+)\}')


class Enqueued(NamedTuple):
    """A message is stored in `stream` as `sequence`; or, when `duplicate`, had been stored before under the same id."""

    stream: str
    sequence: int
    duplicate: bool


class Publication(NamedTuple):
    """A message to publish: `block` is its encoded headers, with a message id so that it can be repeated."""

    subject: str
    block: bytes
    data: bytes


async def publish(connection: Connection, publication: Publication, *, timeout: float) -> Enqueued:
    """Publish one message and wait until it is stored. Cancelling leaves open whether it was.

    Args:
        timeout: seconds for all tries together.

    Raises:
        NotConfirmed: the time is up; the reason is in it.
        PublishRefused: the server will not store it.
        PayloadTooLarge, PermissionDenied, ConnectionClosed: nothing was stored.
    """
    subject = publication.subject
    deadline = anyio.current_time() + timeout
    tries = 0
    why: NatsJobsError | None = None
    while True:
        try:
            reply = await connection.request(
                subject,
                publication.data,
                timeout=min(_ONE_TRY, max(0.0, deadline - anyio.current_time())),
                headers=publication.block,
            )
            return _read_ack(subject, reply)
        except (NoResponders, ConnectionLost, RequestTimeout, PublishRefused) as error:
            if not _is_passing(error):
                raise

            # A try that the deadline cut short tells less than the one before it.
            if why is None or not (isinstance(error, RequestTimeout) and error.seconds < _ONE_TRY):
                why = error

            wait = jittered(tries, first=_FIRST_WAIT, most=_LONGEST_WAIT)
            tries += 1
            if anyio.current_time() + wait >= deadline:
                raise NotConfirmed(subject, timeout, str(why)) from error

        await anyio.sleep(wait)


async def publish_many(
    connection: Connection, publications: Iterable[Publication], *, timeout: float
) -> tuple[dict[int, Enqueued], dict[int, Exception]]:
    """Publish messages, many at a time, and wait for every confirmation.

    Returns the confirmed and the failed ones by position. Those that had to be repeated are stored later
    than their neighbours. Cancelling leaves open which were stored.

    Args:
        timeout: seconds that a message may be repeated after it was first tried.
    """
    acks: dict[int, Enqueued] = {}
    failures: dict[int, Exception] = {}
    todo: Iterable[tuple[int, Publication]] = enumerate(publications)
    tries = 0
    deadline: float | None = None
    while True:
        tour = _Tour(connection, acks, failures)
        await tour.run(todo)
        if not tour.passing:
            return acks, failures

        wait = jittered(tries, first=_FIRST_WAIT, most=_LONGEST_WAIT)
        tries += 1
        deadline = deadline or anyio.current_time() + timeout
        if anyio.current_time() + wait >= deadline:
            for index, (publication, error) in tour.passing.items():
                failures[index] = NotConfirmed(publication.subject, timeout, str(error))

            return acks, failures

        await anyio.sleep(wait)
        todo = [(index, publication) for index, (publication, _) in sorted(tour.passing.items())]


class _Tour:
    """One try of each message, with a bounded number of them unanswered."""

    def __init__(
        self, connection: Connection, acks: dict[int, Enqueued], failures: dict[int, Exception]
    ) -> None:
        self.passing: dict[int, tuple[Publication, Exception]] = {}
        self._connection = connection
        self._acks = acks
        self._failures = failures
        self._unanswered: dict[int, tuple[Publication, str]] = {}
        self._bytes = 0
        self._goal = 0
        self._reached = anyio.Event()

    async def run(self, todo: Iterable[tuple[int, Publication]]) -> None:
        try:
            for index, publication in todo:
                if len(self._unanswered) >= _IN_FLIGHT or self._bytes >= _BYTES_IN_FLIGHT:
                    # Half: so that the frames of many messages leave in one send.
                    await self._wait_until_unanswered(len(self._unanswered) // 2)

                self._send(index, publication)

            await self._wait_until_unanswered(0)
        finally:
            for _, reply_subject in self._unanswered.values():
                self._connection.forget(reply_subject)

    def _send(self, index: int, publication: Publication) -> None:
        on_reply = partial(self._on_reply, index)
        try:
            reply_subject = self._connection.ask(
                publication.subject, publication.data, on_reply, publication.block
            )
        except ConnectionLost as error:
            self.passing[index] = publication, error
        except NatsJobsError as error:
            self._failures[index] = error
        else:
            self._unanswered[index] = publication, reply_subject
            self._bytes += len(publication.data)

    async def _wait_until_unanswered(self, goal: int) -> None:
        """Wait until no more than `goal` are unanswered; give up those that stay silent."""
        while len(self._unanswered) > goal:
            before = len(self._unanswered)
            self._goal = goal
            self._reached = anyio.Event()
            with anyio.move_on_after(_ONE_TRY):
                await self._reached.wait()

            if len(self._unanswered) == before:
                self._give_up_silent()

    def _give_up_silent(self) -> None:
        for index, (publication, reply_subject) in self._unanswered.items():
            self._connection.forget(reply_subject)
            self.passing[index] = publication, RequestTimeout(publication.subject, _ONE_TRY)

        self._unanswered.clear()
        self._bytes = 0

    def _on_reply(self, index: int, reply: Reply) -> None:
        publication, _ = self._unanswered.pop(index)
        self._bytes -= len(publication.data)
        try:
            self._acks[index] = _read_ack(publication.subject, answer_of(reply, publication.subject))
        except NatsJobsError as error:
            if _is_passing(error):
                self.passing[index] = publication, error
            else:
                self._failures[index] = error

        if len(self._unanswered) <= self._goal:
            self._reached.set()


def _read_ack(subject: str, reply: Msg) -> Enqueued:
    """Read a PubAck.

    Raises:
        PublishRefused: an error, or something that is no PubAck: then a subscriber answered instead of a stream.
    """
    stored = _STORED.fullmatch(reply.data)
    if stored is not None:
        return Enqueued(stored[1].decode(), int(stored[2]), False)

    try:
        fields = json.loads(reply.data)
        error = fields.get("error")
        if error is None:
            return Enqueued(fields["stream"], fields["seq"], fields.get("duplicate", False))

        raise PublishRefused(subject, error.get("err_code", 0), error.get("description", ""))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise PublishRefused(
            subject, 0, f"the answer is no confirmation of a stream: {reply.data[:80]!r}"
        ) from None


def _is_passing(error: Exception) -> bool:
    if isinstance(error, PublishRefused):
        return error.err_code in _PASSING_CODES

    return isinstance(error, NoResponders | ConnectionLost | RequestTimeout)
