"""Giving dead letters back to their stream.

The job is published first, under an id made from the letter, and then the letter is removed. A crash
between the two leaves the letter, never a loss; redriven again within the stream's duplicate window
(2 minutes by default) it is the same job, after that a second one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio

from ..errors import BadSubject, NatsJobsError, PayloadTooLarge, PublishRefused, UsageError
from ..jetstream import Enqueued, ErrorCode
from ..wire import Headers, check_publish_subject, subject_matches
from ._browse import DeadLetterIterator
from ._dead_letter import DeadLetter, write_history
from ._headers import STREAM, Header, publish_trimmed
from ._store import API_PATIENCE, DeadLetterStore, StreamState

__all__ = ("RateLimit", "RedriveResult", "Redriver")

_PUBLISH_TIMEOUT = 15.0
# A cancellation between publishing and removing waits for the removal, which ends before this by itself.
_REMOVE_TIMEOUT = 2 * API_PATIENCE
_MAX_FAILURES = 100
# It was for the first time only, and would give the job one attempt more.
_NOT_BEFORE = "nats-jobs-not-before"


@dataclass(slots=True)
class RedriveResult:
    """What came of `redrive_many`: how many letters are jobs again, and how many could not be and are kept.

    `failures` has the reasons for the first 100 of the kept, by the sequence of the letter.
    """

    redriven: int = 0
    kept: int = 0
    failures: dict[int, NatsJobsError] = field(default_factory=dict)


class Redriver:
    """Redrives letter after letter, and asks only once about each stream."""

    def __init__(self, store: DeadLetterStore) -> None:
        self._store = store
        self._streams: dict[str, StreamState | None] = {}

    async def check_removable(self) -> None:
        """Refuse what would be redriven for ever.

        Raises:
            UsageError: DEAD_LETTERS lets nothing be removed.
        """
        state = await self._store.state()
        if state is not None and state.deny_delete:
            raise UsageError(
                f"{STREAM} has deny_delete: a letter could not be removed, and would be redriven for ever"
            )

    async def redrive_all(self, letters: DeadLetterIterator, rate: RateLimit) -> RedriveResult:
        """Redrive each; a letter whose stream is gone or does not take it is kept."""
        result = RedriveResult()
        async for letter in letters:
            await rate.wait()
            try:
                await self.redrive(letter)
                result.redriven += 1
            except (PublishRefused, PayloadTooLarge) as error:
                result.kept += 1
                if len(result.failures) < _MAX_FAILURES:
                    result.failures[letter.sequence] = error

        return result

    async def redrive(self, letter: DeadLetter) -> Enqueued:
        await self._check_stream(letter)
        ack = await publish_trimmed(
            self._store.api.connection,
            letter.subject,
            letter.data,
            Headers(
                {name: letter.headers.get_all(name) for name in letter.headers if name.lower() != _NOT_BEFORE}
            ),
            *_headers(letter),
            timeout=_PUBLISH_TIMEOUT,
        )
        with anyio.move_on_after(_REMOVE_TIMEOUT, shield=True):
            await self._store.remove(letter.sequence)

        return ack

    async def _check_stream(self, letter: DeadLetter) -> None:
        """Say at once what a publish would find out by waiting for a stream that is only out of reach."""
        stream = letter.stream
        kept = f"dead letter {letter.sequence} is kept"
        try:
            # The server stores also what was sent to a wildcard, which we could not send again.
            check_publish_subject(stream)
            check_publish_subject(letter.subject)
        except BadSubject as error:
            raise PublishRefused(letter.subject, 0, f"{error}; {kept}") from None

        if stream not in self._streams:
            self._streams[stream] = await self._store.state(stream)

        state = self._streams[stream]
        if state is None:
            raise PublishRefused(
                letter.subject,
                ErrorCode.STREAM_NOT_FOUND,
                f"stream {stream!r} does not exist any more; {kept}",
            )

        if not any(subject_matches(pattern, letter.subject) for pattern in state.subjects):
            why = f"stream {stream!r} does not take this subject any more; {kept}"
            raise PublishRefused(letter.subject, ErrorCode.OTHER_STREAM_EXPECTED, why)


class RateLimit:
    """Lets through `rate` a second. Time that was lost is not made up for."""

    def __init__(self, rate: Any) -> None:
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0):
            raise UsageError(f"rate is {rate!r}; a number of letters a second, above 0, is needed")

        self._step = 0.0 if rate is None else 1 / rate
        self._next = anyio.current_time()

    async def wait(self) -> None:
        await anyio.sleep_until(self._next)
        self._next = anyio.current_time() + self._step


def _headers(letter: DeadLetter) -> tuple[dict[str, str], ...]:
    """Return what goes with the job: everything, and what to leave out when that is too much."""
    id_only = {"Nats-Msg-Id": letter.redrive_id}
    brief = {**id_only, "Nats-Expected-Stream": letter.stream, Header.REDRIVEN: str(letter.redriven + 1)}
    if letter.id is not None:
        brief[Header.ORIGINAL_ID] = letter.id

    return {**brief, Header.HISTORY: write_history(letter.history)}, brief, id_only
