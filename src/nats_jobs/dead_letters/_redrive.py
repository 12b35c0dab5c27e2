"""Giving dead letters back to their stream.

The job is published first, under an id made from the letter, and then the letter is removed. A crash
between the two leaves the letter, never a loss; redriven again within the stream's duplicate window
(2 minutes by default) it is the same job, after that a second one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import anyio

from ..errors import BadSubject, NatsJobsError, PayloadTooLarge, PublishRefused, UsageError
from ..jetstream import Enqueued, ErrorCode
from ..wire import Headers, check_publish_subject, subject_matches
from ._box import API_PATIENCE, Box, HasApi, State
from ._browse import Letters, existing
from ._fitting import publish_fitting
from ._history import write_history
from ._letter import DeadLetter
from ._selection import Selection, check_count
from ._stream import STREAM, Header

__all__ = ("Redriven", "redrive", "redrive_many")

_PUBLISH_TIMEOUT = 15.0
# A cancellation between publishing and removing waits for the removal, which ends before this by itself.
_REMOVE_LIMIT = 2 * API_PATIENCE
_MOST_FAILURES = 100
# It was for the first time only, and would give the job one attempt more.
_NOT_BEFORE = "nats-jobs-not-before"


@dataclass(slots=True)
class Redriven:
    """What came of `redrive_many`: how many letters are jobs again, and how many could not be and are kept.

    `failures` has the reasons for the first 100 of the kept, by the sequence of the letter.
    """

    redriven: int = 0
    kept: int = 0
    failures: dict[int, NatsJobsError] = field(default_factory=dict)


async def redrive(processor: HasApi, sequence: int) -> Enqueued:
    """Give one dead letter back: its job goes to the subject it came from, then the letter is removed.

    The job counts its attempts from 1 again. It has the headers it was enqueued with, and what is known of
    its past: `Header.ORIGINAL_ID`, `REDRIVEN` and `HISTORY`. Cancelling is safe: the letter is kept unless
    the job is stored.

    Raises:
        UsageError: there is no letter with this sequence, or DEAD_LETTERS lets nothing be removed.
        PublishRefused: its stream is gone, or does not take it. The letter is kept.
        NotConfirmed, PayloadTooLarge: the job is not stored, or not known to be. The letter is kept.
    """
    box = Box(processor.api)
    letter = await existing(box, sequence)
    await _check_removable(box)
    return await _Desk(box).redrive(letter)


async def redrive_many(
    processor: HasApi,
    *,
    stream: str | None = None,
    reason: str | None = None,
    before: datetime | None = None,
    limit: int | None = None,
    rate: float | None = None,
) -> Redriven:
    """Give dead letters back, the oldest first: all of them, unless told which.

    Those that come while it works, such as of jobs that fail again, stay. A letter whose stream is gone or
    does not take it is kept, and the others go on. Stopped halfway, by an error or a cancellation, it can be
    called again. See `redrive` for each.

    Args:
        stream, reason, before: as for `browse`.
        limit: this many letters at most.
        rate: this many a second at most, above 0. None: as fast as it goes.

    Raises:
        UsageError: an argument that cannot work, or DEAD_LETTERS lets nothing be removed.
        NotConfirmed: a job is not known to be stored. Its letter, and those after it, are kept.
    """
    selection = Selection(stream, reason, before)
    if limit is not None:
        check_count("limit", limit, 1)

    pace = _Pace(rate)
    box = Box(processor.api)
    await _check_removable(box)
    desk = _Desk(box)
    outcome = Redriven()
    async for letter in Letters(box, selection, after=0, limit=limit):
        await pace.wait()
        try:
            await desk.redrive(letter)
            outcome.redriven += 1
        except (PublishRefused, PayloadTooLarge) as error:
            outcome.kept += 1
            if len(outcome.failures) < _MOST_FAILURES:
                outcome.failures[letter.sequence] = error

    return outcome


class _Desk:
    """Redrives letter after letter, and asks only once about each stream."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._streams: dict[str, State | None] = {}

    async def redrive(self, letter: DeadLetter) -> Enqueued:
        await self._check_stream(letter)
        ack = await publish_fitting(
            self._box.api.connection,
            letter.subject,
            letter.data,
            Headers(
                {name: letter.headers.get_all(name) for name in letter.headers if name.lower() != _NOT_BEFORE}
            ),
            *_headers(letter),
            timeout=_PUBLISH_TIMEOUT,
        )
        with anyio.move_on_after(_REMOVE_LIMIT, shield=True):
            await self._box.remove(letter.sequence)

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
            self._streams[stream] = await self._box.state(stream)

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


class _Pace:
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


async def _check_removable(box: Box) -> None:
    state = await box.state()
    if state is not None and state.deny_delete:
        raise UsageError(
            f"{STREAM} has deny_delete: a letter could not be removed, and would be redriven for ever"
        )
