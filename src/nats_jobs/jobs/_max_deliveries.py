"""Ends the jobs whose last delivery was lost: a backstop.

The delivery that reaches `max_deliver` is the last one. When its worker is killed, or it never arrives, the
message stays in the stream and nobody gets it any more (seen on 2.15). The server says so in an advisory, as
soon as somebody pulls again: by then the lease of that delivery is over. So it ends here as a
dead letter, stored first and then removed from its stream, as with the settlement of an attempt.

An advisory is a message like any other, and anyone who may publish on its subject can forge it, so the server is
asked whether the delivery is still open. It tells how many are and up to where none is, not which. Where that
leaves it open, the other workers are asked who holds the message; while somebody does, it is left alone. A job
that waits between two attempts is held by nobody: only permissions keep a forged advisory from parking that.

When the server shows that it is lost, a worker that still believes to hold it is told that it does not: its
lease was forgotten by a consumer leader that crashed. An answer of its that is quicker than we are wins, for
then there is no message left to park. One that comes between parking and removal does not: then there is a
dead letter too many.

What this cannot catch: the server says it once, to those who listen just then. A message of which nobody heard
stays. It cannot be told from one that is unreachable for another reason, as the messages that a consumer has
passed by before its filter was changed, so nobody goes and looks for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import anyio

from .. import dead_letters
from .._untrusted import field_of, parse_json
from ..errors import ApiError, Malformed, NatsJobsError, PermissionDenied, RequestTimeout, ServerRefused
from ..events import DeadLettered
from ..jetstream import Info, JetStreamApi
from ..wire import Msg, subject_matches
from ._bound_consumer import BoundConsumer
from ._claims import Claims, Question
from ._definition import JobDef
from ._emitter import logger
from ._lease_keeper import LeaseKeeper
from ._reporter import Reporter
from ._settle import Counts

__all__ = ("MaxDeliveriesMonitor",)

_ADVISORY = "MAX_DELIVERIES advisory"
# One worker of the fleet acts on each message. The name is that of earlier versions: they share the work.
_GROUP = "nats-jobs-janitors"
_MAX_WAITING = 10_000
# Seconds. Who holds a message has `ack_wait` at most to say so: a loop blocked for longer has lost its leases.
_MAX_ANSWER_TIMEOUT = 5.0
_RETRY_INTERVAL = 5.0
_REMOVE_TIMEOUT = 5.0
# These say the same however often it is tried.
_FINAL = (ApiError, PermissionDenied, ServerRefused)


@dataclass(order=True)
class _Lost:
    """A message whose last delivery is said to be lost; when to look at it next, and how far its end has got."""

    due: float
    sequence: int
    deliveries: int = field(compare=False)
    question: Question = field(compare=False)
    answered_by: float = field(compare=False)
    parked: bool = field(default=False, compare=False)


class MaxDeliveriesMonitor:
    """Listens for one worker, from before its first pull until it stops pulling."""

    def __init__(
        self,
        defn: JobDef[Any],
        api: JetStreamApi,
        bound: BoundConsumer,
        leases: LeaseKeeper,
        claims: Claims,
        reporter: Reporter,
        counts: Counts,
    ) -> None:
        self.ignored = 0
        self._defn = defn
        self._api = api
        self._bound = bound
        self._leases = leases
        self._claims = claims
        self._report = reporter
        self._counts = counts
        # A heap: the next one due is the first.
        self._waiting: list[_Lost] = []
        self._heard = anyio.Event()
        self._sid = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of lost deliveries inside of the block."""
        lowlevel = self._api.connection.lowlevel
        self._sid = lowlevel.subscribe_nowait(
            f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{self._bound.stream}.{self._bound.name}",
            self._on_advisory,
            queue=_GROUP,
            on_error=self._on_error,
        )
        try:
            yield
        finally:
            lowlevel.unsubscribe(self._sid)

    async def run(self) -> None:
        """End what is heard of, one after the other, until cancelled; what is waiting then stays in the stream.

        Cancelling takes 5 seconds at most, when a letter is stored and its job is being removed.
        """
        while True:
            lost = await self._next()
            waiting = self._waiting
            again = await self._look(lost)
            # Unless all were forgotten meanwhile.
            if again is not None and waiting is self._waiting:
                lost.due = again
                heappush(waiting, lost)

    def forget(self) -> None:
        """The consumer is another one: the numbers that were heard of mean other messages now."""
        self._waiting = []

    async def _next(self) -> _Lost:
        while not self._waiting or self._waiting[0].due > anyio.current_time():
            self._heard = anyio.Event()
            with anyio.CancelScope(deadline=self._waiting[0].due if self._waiting else math.inf):
                await self._heard.wait()

        return heappop(self._waiting)

    async def _look(self, lost: _Lost) -> float | None:
        """Do what can be done for it now, and return when to look again; None when nothing is left to do."""
        try:
            return await self._end_if_lost(lost)
        except Exception as error:
            # Whatever it is: what is only a backstop must not end the worker.
            final = isinstance(error, _FINAL) or not isinstance(error, NatsJobsError)
            logger.error(
                "%s/%d is in the stream and will never be delivered again, and could not be made a dead letter%s: %s",
                self._bound.stream,
                lost.sequence,
                "" if final else "; this is tried again",
                error,
            )
            return None if final else anyio.current_time() + _RETRY_INTERVAL

    async def _end_if_lost(self, lost: _Lost) -> float | None:
        consumer = await self._consumer()
        if consumer is not None and not _was_delivered(consumer, lost.sequence):
            self._ignore(lost, "it was not delivered yet")
            return None

        if consumer is None or _may_be_open(consumer, lost.sequence):
            held = max(self._leases.attempt_held(lost.sequence), lost.question.attempt)
            if held:
                return self._leave_alone(lost, held)

            if anyio.current_time() < lost.answered_by:
                return lost.answered_by

        return await self._end(lost, consumer)

    async def _consumer(self) -> Info | None:
        """None when we may not ask."""
        try:
            return await self._api.consumer(self._bound.stream, self._bound.name)
        except PermissionDenied:
            return None

    def _leave_alone(self, lost: _Lost, held: int) -> float | None:
        if not self._bound.limits.is_last_delivery(held):
            self._ignore(lost, f"delivery {held} is being performed, which is not the last")
            return None

        # Perhaps it is true, and the server forgot that this lease was extended. Then nobody gets the message
        # when its holder dies, and nobody would be told again.
        self._ask(lost)
        return anyio.current_time() + _RETRY_INTERVAL

    def _ignore(self, lost: _Lost, reason: str) -> None:
        self.ignored += 1
        if self.ignored == 1:
            # Once: anyone who can publish there could fill the log.
            logger.warning(
                "%s for %s/%d is ignored: %s. Others than the server may publish it; take that permission away. "
                "Further ones are only counted",
                *(_ADVISORY, self._bound.stream, lost.sequence, reason),
            )

    async def _end(self, lost: _Lost, consumer: Info | None) -> float | None:
        self._claims.none_left(lost.sequence, lost.deliveries)
        job = await dead_letters.StoredMessage.find(
            self._api, self._bound.stream, self._bound.name, lost.sequence, lost.deliveries
        )
        if job is None:
            return None

        if consumer is not None and not _selects(consumer, job.subject):
            self._ignore(lost, "it belongs to another consumer")
            return None

        error = NatsJobsError(
            f"the last of its {lost.deliveries} deliveries was lost; its worker seems to have died"
        )
        if self._defn.dead_letter and not lost.parked:
            # Cancelled in here, the letter may be stored and the job left: better than the other way round.
            await dead_letters.park(self._api, job, "crash-loop", error)
            lost.parked = True

        if await self._removed(job):
            self._counts.dead_lettered += 1
            self._report.job(DeadLettered, job, reason="crash-loop", error=str(error))

        return None

    async def _removed(self, job: dead_letters.StoredMessage) -> bool:
        with anyio.move_on_after(_REMOVE_TIMEOUT, shield=True):
            return await job.remove(self._api)

        raise RequestTimeout("STREAM.MSG.DELETE", _REMOVE_TIMEOUT)

    def _on_advisory(self, message: Msg) -> None:
        try:
            sequence, deliveries = _parse_advisory(message.data)
        except Malformed:
            # Not from a server, or from one that is newer than we are.
            return

        if self._claims.is_asked(sequence):
            return

        if len(self._waiting) < _MAX_WAITING:
            now = anyio.current_time()
            question = self._claims.ask(sequence)
            heappush(self._waiting, _Lost(now, sequence, deliveries, question, now + self._answer_timeout))
            self._heard.set()
        else:
            logger.error(
                "%s/%d will never be delivered again and stays in the stream: there are too many of them",
                self._bound.stream,
                sequence,
            )

    def _ask(self, lost: _Lost) -> None:
        lost.question = self._claims.ask(lost.sequence)
        lost.answered_by = anyio.current_time() + self._answer_timeout

    @property
    def _answer_timeout(self) -> float:
        return min(self._leases.ack_wait, _MAX_ANSWER_TIMEOUT)

    def _on_error(self, error: Exception) -> None:
        # The end of the connection is told by others.
        if isinstance(error, PermissionDenied | ServerRefused):
            logger.warning(
                "jobs of %s whose last delivery was lost will stay in the stream: %s",
                self._bound.stream,
                error,
            )


def _parse_advisory(data: bytes) -> tuple[int, int]:
    """Return the sequence of the message and how often it was delivered."""
    fields = parse_json(data, _ADVISORY)
    sequence = field_of(fields, "stream_seq", int, _ADVISORY)
    deliveries = field_of(fields, "deliveries", int, _ADVISORY)
    if sequence < 1 or deliveries < 1:
        raise Malformed(_ADVISORY, f"numbers from 1 are expected: {sequence}, {deliveries}")

    return sequence, deliveries


def _was_delivered(consumer: Info, sequence: int) -> bool:
    return sequence <= _sequence_in(consumer, "delivered")


def _may_be_open(consumer: Info, sequence: int) -> bool:
    """Whether the server may still wait for an answer to a delivery of this message."""
    is_any_open = field_of(consumer.fields, "num_ack_pending", int, "CONSUMER.INFO") > 0
    return is_any_open and sequence > _sequence_in(consumer, "ack_floor")


def _sequence_in(consumer: Info, name: str) -> int:
    pair = field_of(consumer.fields, name, dict, "CONSUMER.INFO")
    return field_of(pair, "stream_seq", int, "CONSUMER.INFO")


def _selects(consumer: Info, subject: str) -> bool:
    one = field_of(consumer.config, "filter_subject", str, "CONSUMER.INFO", "")
    patterns = [one] if one else field_of(consumer.config, "filter_subjects", list, "CONSUMER.INFO", [])
    return not patterns or any(subject_matches(pattern, subject) for pattern in patterns)
