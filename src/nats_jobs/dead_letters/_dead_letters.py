"""`JobProcessor.dead_letters`: what can be done with parked jobs."""

from __future__ import annotations

from datetime import datetime

from ..errors import UsageError
from ..jetstream import Enqueued, JetStreamApi
from ._browse import DeadLetterIterator, Filter, check_count
from ._dead_letter import DeadLetter
from ._redrive import RateLimit, Redriver, RedriveResult
from ._store import DeadLetterStore

__all__ = ("DeadLetters",)


class DeadLetters:
    """Look at dead letters, give them back, or throw them away. Each has a number of its own, its sequence in `STREAM`.

    All methods raise, besides what each one names: `ApiError` when JetStream refuses, `NoResponders` when it does
    not answer, `RequestTimeout`, `ConnectionLost`. Cancelling stops between two letters.
    """

    def __init__(self, api: JetStreamApi) -> None:
        self._store = DeadLetterStore(api)

    def browse(
        self,
        *,
        stream: str | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> DeadLetterIterator:
        """Read dead letters, the oldest first: `async for letter in p.dead_letters.browse(stream="ORDERS")`.

        The server selects by stream; with `reason` or `before` all letters of the stream are read.

        Args:
            stream: only those of jobs of this stream.
            reason: only those that were parked for this reason, one of `REASONS`.
            before: only those parked before this aware datetime.
            after: only those with a higher sequence; to go on where an earlier call ended.
            limit: this many at most.

        Raises:
            UsageError: an argument that cannot work.
        """
        check_count("after", after, 0)
        return self._letters(Filter(stream, reason, before), after, limit)

    async def count(
        self, *, stream: str | None = None, reason: str | None = None, before: datetime | None = None
    ) -> int:
        """Count dead letters: one request for all, or for a stream; with `reason` or `before` they are read. See `browse`."""
        chosen = Filter(stream, reason, before)
        if chosen.is_by_subject:
            return await self._store.count(chosen.subject)

        total = 0
        async for _ in self._letters(chosen):
            total += 1

        return total

    async def get(self, sequence: int) -> DeadLetter:
        """Return one dead letter.

        Raises:
            UsageError: there is none with this sequence.
        """
        check_count("sequence", sequence, 1)
        letter = await self._store.letter(sequence)
        if letter is None:
            raise UsageError(f"there is no dead letter {sequence}; it may have been redriven or removed")

        return letter

    async def redrive(self, sequence: int) -> Enqueued:
        """Give one dead letter back: its job goes to the subject it came from, then the letter is removed.

        The job counts its attempts from 1 again. It has the headers it was enqueued with, and what is known of
        its past: `Header.ORIGINAL_ID`, `REDRIVEN` and `HISTORY`. Cancelling is safe: the letter is kept unless
        the job is stored.

        Raises:
            UsageError: there is no letter with this sequence, or DEAD_LETTERS lets nothing be removed.
            PublishRefused: its stream is gone, or does not take it. The letter is kept.
            NotConfirmed, PayloadTooLarge: the job is not stored, or not known to be. The letter is kept.
        """
        letter = await self.get(sequence)
        redriver = Redriver(self._store)
        await redriver.check_removable()
        return await redriver.redrive(letter)

    async def redrive_many(
        self,
        *,
        stream: str | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        rate: float | None = None,
    ) -> RedriveResult:
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
        letters = self._letters(Filter(stream, reason, before), limit=limit)
        rate_limit = RateLimit(rate)
        redriver = Redriver(self._store)
        await redriver.check_removable()
        return await redriver.redrive_all(letters, rate_limit)

    async def remove(self, sequence: int) -> None:
        """Throw one dead letter away, also one that cannot be read.

        Raises:
            UsageError: there is none with this sequence.
        """
        await self.get(sequence)
        await self._store.remove(sequence)

    async def purge(
        self, *, stream: str | None = None, reason: str | None = None, before: datetime | None = None
    ) -> int:
        """Throw dead letters away, and return how many: all of them, unless told which.

        Those that come while it works stay. With `reason` or `before` they go one by one; cancelled or failed,
        it has removed the oldest.

        Args:
            stream, reason, before: as for `browse`.

        Raises:
            UsageError: an argument that cannot work.
        """
        chosen = Filter(stream, reason, before)
        if chosen.is_by_subject:
            state = await self._store.state()
            return await self._store.purge(chosen.subject, state.last_sequence) if state is not None else 0

        removed = 0
        async for letter in self._letters(chosen):
            removed += await self._store.remove(letter.sequence)

        return removed

    def _letters(self, chosen: Filter, after: int = 0, limit: int | None = None) -> DeadLetterIterator:
        if limit is not None:
            check_count("limit", limit, 1)

        return DeadLetterIterator(self._store, chosen, after=after, limit=limit)
