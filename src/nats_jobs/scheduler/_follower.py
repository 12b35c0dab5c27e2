"""One schedule in one process: it declares it, and from then on follows what is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from ..events import Event, ScheduleReplaced, TickEnqueued, TickSkipped
from ..jobs import logger
from ._decide import Decision, Skipped, decide
from ._declaration import Declaration
from ._ledger import Ledger, RecordChanged, Stored
from ._record import Record
from ._rules import Rule

__all__ = ("Follower", "StreamView")


class StreamView(Protocol):
    """What has to be known of the stream of the jobs."""

    async def has(self, sequence: int) -> bool:
        """Whether that message is still there."""
        ...

    async def check_exists(self) -> None:
        """Raise StreamDeleted if the stream is missing."""


class Follower:
    """Does what is due for one schedule, unless somebody else has.

    Args:
        ledger: where its record is.
        jobs: the stream of its jobs.
        now: the server's time.
        emit: called with every event.
    """

    def __init__(
        self,
        declaration: Declaration,
        ledger: Ledger,
        jobs: StreamView,
        *,
        now: Callable[[], datetime],
        emit: Callable[[Event], None],
    ) -> None:
        self.declaration = declaration
        self._ledger = ledger
        self._jobs = jobs
        self._now = now
        self._emit = emit
        self._watched_since = now()
        self._stored: Stored | None = None
        self._rule: Rule | None = None
        self.has_declared = False
        """Whether the record is ours because it was written here."""

    @property
    def record(self) -> Record | None:
        """The record as it was last read or written; None before that."""
        return self._stored and self._stored.record

    @property
    def is_over(self) -> bool:
        """Whether it has been removed, has had all its jobs, or has no tick any more."""
        if self._stored is None:
            return False

        record = self._stored.record
        if record.removed or record.is_used_up:
            return True

        if record.paused or self._rule is None:
            return False

        decision = self._decision(self._now())
        return decision.next is None and decision.last is None

    def forget(self) -> None:
        """The record may have changed: read it before anything is done."""
        self._stored = None if self._stored is None else Stored(self._stored.record, -1)

    async def declare(self) -> datetime | None:
        """See to it that there is a record, ours if it is to be. Return the next tick.

        Nothing is lost of the terms that are replaced: what was due by then is dealt with first.
        """
        while True:
            try:
                if await self._declared(await self._ledger.read(self.declaration.id)):
                    return self._next_tick()
            except RecordChanged:
                continue

    async def step(self, now: datetime) -> datetime | None:
        """Do one thing that is due at `now`, if anything is, and return when to look again: at once, when that has come.

        `now` may be over by a little: what waits for its turn here is not late by that.

        Raises what enqueueing raises; the record is read again then.
        """
        try:
            if self._stored is None or self._stored.revision < 0:
                await self._read_again()

            return await self._act(now)
        except RecordChanged:
            self.forget()
            return self._now()
        except BaseException:
            # Whether something was stored may be open.
            self.forget()
            raise

    # Declaring...

    async def _declared(self, stored: Stored | None) -> bool:
        """Do one thing towards the declaration; return whether it stands."""
        ours, now = self.declaration, self._now()
        if stored is None or stored.record.removed:
            fresh = Record(ours.id, ours.terms, ours.version, declared_at=now, since=now)
            self._keep(await self._ledger.write(fresh, 0 if stored is None else stored.revision))
            self.has_declared = True
            return True

        self._keep(stored)
        record = stored.record
        if record.terms.digest == ours.terms.digest:
            return True

        if record.version > ours.version:
            self._tell_replaced(ours.terms.rule, ours.version, record)
            return True

        decision = self._decision(now)
        if decision.last is not None:
            await self._carry_out(decision)
            return False

        self._keep(await self._ledger.write(record.replaced(ours.terms, ours.version, now), stored.revision))
        self._tell_replaced(record.terms.rule, record.version, self._kept.record)
        self.has_declared = True
        return True

    def _tell_replaced(self, rule: str, version: int, record: Record) -> None:
        self._emit(
            ScheduleReplaced(
                id=record.id, old=rule, new=record.terms.rule, old_version=version, new_version=record.version
            )
        )

    async def _read_again(self) -> None:
        former = self.record
        stored = await self._ledger.read(self.declaration.id)
        if stored is None:
            await self._jobs.check_exists()
            stored = await self._restored(former)

        if former is not None and stored.record.terms.digest != former.terms.digest:
            self._tell_replaced(former.terms.rule, former.version, stored.record)

        self._keep(stored)

    async def _restored(self, former: Record | None) -> Stored:
        """Somebody has purged the stream: go on from what we know."""
        now, ours = self._now(), self.declaration
        record = former or Record(ours.id, ours.terms, ours.version, declared_at=now, since=now)
        logger.warning(
            "schedule %s: its record in stream %s was purged; it is declared again",
            ours.id,
            self._ledger.stream,
        )
        return await self._ledger.write(replace(record, job=0), 0)

    # Ticks...

    @property
    def _kept(self) -> Stored:
        assert self._stored is not None
        return self._stored

    def _keep(self, stored: Stored) -> None:
        if self._stored is None or stored.record.terms is not self._stored.record.terms:
            self._rule = self.declaration.rule_for(stored.record.terms)

        self._stored = stored

    def _decision(self, now: datetime) -> Decision:
        if self._rule is None:
            # Others have the function.
            return Decision(None)

        return decide(self._kept.record, self._rule, now, self._watched_since)

    def _next_tick(self) -> datetime | None:
        decision = self._decision(self._now())
        return decision.next if decision.last is None else self._now()

    async def _act(self, now: datetime) -> datetime | None:
        decision = self._decision(now)
        if decision.last is None:
            return decision.next

        await self._carry_out(decision)
        return self._next_tick()

    async def _carry_out(self, decision: Decision) -> None:
        record, revision = self._kept
        if decision.tick is not None and await self._is_held_up(record):
            held_up = Skipped(decision.tick, "overlap")
            decision = Decision(decision.next, skipped=(*decision.skipped, held_up))

        if decision.tick is None:
            self._keep(await self._ledger.write(replace(record, last=decision.last), revision))
        else:
            late_in_a_row = record.late_in_a_row + 1 if decision.is_late else 0
            after = replace(record, last=decision.tick, count=record.count + 1, late_in_a_row=late_in_a_row)
            job = self.declaration.job_of(record, decision.tick)
            self._keep(await self._ledger.enqueue(after, revision, job))

        self._tell(decision)

    async def _is_held_up(self, record: Record) -> bool:
        return record.terms.overlap == "skip" and record.job > 0 and await self._jobs.has(record.job)

    def _tell(self, decision: Decision) -> None:
        id = self.declaration.id
        for skipped in decision.skipped:
            self._emit(TickSkipped(id=id, tick=skipped.tick, reason=skipped.reason, until=skipped.until))

        if decision.tick is not None:
            late = (self._now() - decision.tick).total_seconds()
            self._emit(TickEnqueued(id=id, tick=decision.tick, late=late))
