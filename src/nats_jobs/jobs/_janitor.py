"""Ends the jobs whose last delivery was lost: a backstop.

The delivery that reaches `max_deliver` is the last one. When its worker is killed, or it never arrives, the
message stays in the stream and nobody gets it any more (seen on 2.15). The server says so in an advisory, as
soon as somebody pulls again: by then the lease of whoever had that delivery is over. So it ends here as a
dead letter, stored first and then removed from its stream, as with the settlement of an attempt.

Whoever believes to hold it all the same is told that it does not: its lease was forgotten by a consumer
leader that crashed. An answer of its that is quicker than we are wins, for then there is no message left to
park. One that comes between parking and removal does not: then there is a dead letter too many.

What this cannot catch: the server says it once, to whoever listens just then. A message of which nobody heard
stays. It cannot be told from one that is unreachable for another reason, as the messages that a consumer has
passed by before its filter was changed, so nobody goes and looks for it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import anyio

from .._untrusted import field_of, parse_json
from ..errors import ApiError, Malformed, NatsJobsError, PermissionDenied, RequestTimeout, ServerRefused
from ..events import DeadLettered
from ..jetstream import JetStreamApi
from ..wire import Msg
from . import _dead_letters
from ._claims import Claims
from ._definition import JobDef
from ._emitter import logger
from ._reporter import Reporter
from ._settle import Counts
from ._setup import Site

__all__ = ("Janitor",)

_ADVISORY = "MAX_DELIVERIES advisory"
# One worker of the fleet acts on each message.
_GROUP = "nats-jobs-janitors"
_MOST_WAITING = 10_000
# Seconds.
_AGAIN = 5.0
_REMOVE_LIMIT = 5.0
# These say the same however often it is tried.
_FINAL = (ApiError, PermissionDenied, ServerRefused)


@dataclass
class _Lost:
    """A message whose last delivery was lost, by its sequence; and how far its end has got."""

    sequence: int
    deliveries: int
    parked: bool = False


class Janitor:
    """Listens for one worker, from before its first pull until it stops pulling."""

    def __init__(
        self,
        defn: JobDef[Any],
        api: JetStreamApi,
        site: Site,
        claims: Claims,
        reporter: Reporter,
        counts: Counts,
    ) -> None:
        self._defn = defn
        self._api = api
        self._site = site
        self._claims = claims
        self._report = reporter
        self._counts = counts
        self._waiting: deque[_Lost] = deque()
        self._heard = anyio.Event()
        self._sid = api.connection.lowlevel.subscribe_nowait(
            f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{site.stream}.{site.consumer}",
            self._hear,
            queue=_GROUP,
            on_error=self._refused,
        )

    async def run(self) -> None:
        """End what is heard of, one after the other, until cancelled; what is in the books then stays in the stream.

        Cancelling takes 5 seconds at most, when a letter is stored and its job is being removed.
        """
        while True:
            while not self._waiting:
                self._heard = anyio.Event()
                await self._heard.wait()

            # Stays in the books until it has ended.
            lost = self._waiting[0]
            has_ended = await self._has_ended(lost)
            if not self._waiting or self._waiting[0] is not lost:
                # All were forgotten meanwhile.
                continue

            if has_ended:
                self._waiting.popleft()
            else:
                self._waiting.rotate(-1)
                await anyio.sleep(_AGAIN)

    def forget(self) -> None:
        """The consumer is another one: the numbers that were heard of mean other messages now."""
        self._waiting.clear()

    def close(self) -> None:
        """Hear nothing more."""
        self._api.connection.lowlevel.unsubscribe(self._sid)

    async def _has_ended(self, lost: _Lost) -> bool:
        """Whether there is nothing left to do, or nothing that could be done."""
        try:
            await self._end(lost)
        except Exception as trouble:
            # Whatever it is: what is only a backstop must not end the worker.
            final = isinstance(trouble, _FINAL) or not isinstance(trouble, NatsJobsError)
            logger.error(
                "%s/%d is in the stream and will never be delivered again, and could not be ended%s: %s",
                self._site.stream,
                lost.sequence,
                "" if final else "; that is tried again",
                trouble,
            )
            return final

        return True

    async def _end(self, lost: _Lost) -> None:
        self._claims.none_left(lost.sequence, lost.deliveries)
        job = await _dead_letters.Stranded.find(
            self._api, self._site.stream, self._site.consumer, lost.sequence, lost.deliveries
        )
        if job is None:
            return

        why = NatsJobsError(
            f"the last of its {lost.deliveries} deliveries was lost; its worker seems to have died"
        )
        if self._defn.dead_letter and not lost.parked:
            # Cancelled in here, the letter may be stored and the job left: better than the other way round.
            await _dead_letters.park(self._api, job, "crash-loop", why)
            lost.parked = True

        if await self._removed(job):
            self._counts.dead_lettered += 1
            self._report.job(DeadLettered, job, reason="crash-loop", error=str(why))

    async def _removed(self, job: _dead_letters.Stranded) -> bool:
        with anyio.move_on_after(_REMOVE_LIMIT, shield=True):
            return await job.remove(self._api)

        raise RequestTimeout("STREAM.MSG.DELETE", _REMOVE_LIMIT)

    def _hear(self, message: Msg) -> None:
        try:
            lost = _parse_advisory(message.data)
        except Malformed:
            # Not from a server, or from one that is newer than we are.
            return

        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(lost)
            self._heard.set()
        else:
            logger.error(
                "%s/%d will never be delivered again and stays in the stream: there are too many of them",
                self._site.stream,
                lost.sequence,
            )

    def _refused(self, error: Exception) -> None:
        # The end of the connection is told by others.
        if isinstance(error, PermissionDenied | ServerRefused):
            logger.warning(
                "jobs of %s whose last delivery is lost will stay in the stream: %s", self._site.stream, error
            )


def _parse_advisory(data: bytes) -> _Lost:
    fields = parse_json(data, _ADVISORY)
    lost = _Lost(
        field_of(fields, "stream_seq", int, _ADVISORY), field_of(fields, "deliveries", int, _ADVISORY)
    )
    if lost.sequence < 1 or lost.deliveries < 1:
        raise Malformed(_ADVISORY, f"numbers from 1 are expected: {lost}")

    return lost
