"""`JobProcessor.schedules`: what can be done with schedules, whoever has declared them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from ..errors import Malformed, ScheduleError
from ..events import Event, TickSkipped
from ..jetstream import Enqueued, JetStreamApi, publish, retrying
from ..wire import encode_headers, unique_token
from ._changes import announce
from ._decide import decide, told_until
from ._declaration import Declaration, job_at
from ._ledger import Ledger, RecordChanged, Stored
from ._ledgers import all_ledgers
from ._record import Record
from ._run_ledger import RunLedger
from ._schedule import check_id
from ._server_clock import time_of_stream
from ._terms import Terms

__all__ = ("ScheduleInfo", "Schedules")


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule as it is stored. All moments are UTC, by the server's clock."""

    id: str
    rule: str
    tz: str
    stream: str
    subject: str
    version: int
    paused: bool
    note: str
    """Why it is paused."""

    declared_at: datetime
    last_tick: datetime | None
    """The last one that was enqueued or skipped."""

    next_tick: datetime | None
    """None while paused, after the last one, and when the rule is a function."""

    count: int
    """Jobs so far."""

    terms: Terms
    """All that it says."""


class Following(Protocol):
    """What has to be known of the schedules of this processor."""

    def declaration(self, id: str) -> Declaration | None:
        """Return what this processor has declared under that id."""
        ...


class Schedules:
    """The schedules of all streams. Every method raises what a request to JetStream raises.

    A change is seen by all processes that follow the schedule, at once.
    """

    def __init__(
        self, api: JetStreamApi, following: Following, emit: Callable[[Event], None], *, timeout: float
    ) -> None:
        self._api = api
        self._following = following
        self._emit = emit
        self._timeout = timeout

    async def list(self) -> list[ScheduleInfo]:
        """Return all schedules, in the order of their ids. A record that is malformed is left out."""
        infos = []
        for ledger in await all_ledgers(self._api):
            now = await time_of_stream(self._api, ledger.stream)
            for id in await ledger.ids():
                stored = await _read_well_formed(ledger, id)
                if stored is not None and not stored.record.removed:
                    infos.append(_info(stored.record, now))

        return sorted(infos, key=lambda info: (info.id, info.stream))

    async def get(self, id: str) -> ScheduleInfo:
        """Return one schedule.

        Raises:
            ScheduleError: there is none of that id.
            Malformed: its record is none.
        """
        ledger, stored = await self._find(id)
        return _info(stored.record, await time_of_stream(self._api, ledger.stream))

    async def pause(self, id: str, *, note: str = "") -> None:
        """Let no tick be enqueued until `resume`. What is enqueued already stays.

        Raises:
            ScheduleError: there is no schedule of that id.
        """
        await self._change(id, lambda record, now: replace(record, paused=True, note=note))

    async def resume(self, id: str) -> None:
        """Go on with the first tick from now. The ticks of the pause are skipped, whatever `catch_up` says.

        Raises:
            ScheduleError: there is no schedule of that id.
        """
        before, now = await self._change(
            id,
            lambda record, now: (
                replace(record, paused=False, note="", since=now) if record.paused else record
            ),
        )
        if before.paused:
            self._tell_paused(before, now)

    async def remove(self, id: str) -> None:
        """End a schedule. A process that declares it later, such as one that starts again, begins it anew.

        Raises:
            ScheduleError: there is no schedule of that id.
        """
        await self._change(id, lambda record, now: replace(record, removed=True))

    async def fire(self, id: str) -> Enqueued:
        """Enqueue one more job, for this moment. Ticks stay where they are; also while it is paused.

        Raises:
            ScheduleError: there is no schedule of that id, or its payload is a function that this processor has not
                declared.
            PublishRefused, NotConfirmed: as `enqueue`.
        """
        ledger, stored = await self._find(id)
        if isinstance(ledger, RunLedger):
            raise ScheduleError("id", "is a function that recurs, which is not run by hand", id)

        now = await time_of_stream(self._api, ledger.stream)
        declaration = self._following.declaration(id)
        job = declaration.job_of(stored.record, now) if declaration else job_at(stored.record, now)
        headers = {**job.headers, "Nats-Msg-Id": f"{id}:fired:{unique_token()}"}
        return await publish(
            self._api.connection, job.subject, encode_headers(headers), job.data, timeout=self._timeout
        )

    async def _change(self, id: str, change: Callable[[Record, datetime], Record]) -> tuple[Record, datetime]:
        """Change a record, and return what it was, and when that was."""
        ledger, stored = await self._find(id)
        while True:
            now = await time_of_stream(self._api, ledger.stream)
            changed = change(stored.record, now)
            try:
                if changed != stored.record:
                    await ledger.write(changed, stored.revision)
                    await announce(self._api.connection, id)
            except RecordChanged:
                ledger, stored = await self._find(id)
            else:
                return stored.record, now

    async def _find(self, id: str) -> tuple[Ledger, Stored]:
        check_id(id)
        for ledger in await retrying(lambda _: all_ledgers(self._api), self._timeout):
            stored = await ledger.read(id)
            if stored is not None and not stored.record.removed:
                return ledger, stored

        raise ScheduleError("id", "there is no schedule of that id", id)

    def _tell_paused(self, record: Record, now: datetime) -> None:
        try:
            rule = record.terms.parsed_rule()
        except Malformed:
            # A function, which others have.
            return

        for skipped in told_until(replace(record, paused=False), rule, now, "paused"):
            self._emit(
                TickSkipped(id=record.id, tick=skipped.tick, reason=skipped.reason, until=skipped.until)
            )


async def _read_well_formed(ledger: Ledger, id: str) -> Stored | None:
    try:
        return await ledger.read(id)
    except Malformed:
        return None


def _info(record: Record, now: datetime) -> ScheduleInfo:
    terms = record.terms
    return ScheduleInfo(
        id=record.id,
        rule=terms.rule,
        tz=terms.tz,
        stream=terms.stream,
        subject=terms.subject,
        version=record.version,
        paused=record.paused,
        note=record.note,
        declared_at=record.declared_at,
        last_tick=record.last,
        next_tick=_next_tick(record, now),
        count=record.count,
        terms=terms,
    )


def _next_tick(record: Record, now: datetime) -> datetime | None:
    """Return the next one from now on: those that are due are somebody's business already."""
    try:
        rule = record.terms.parsed_rule()
    except Malformed:
        return None

    later = replace(record, since=max(now, record.since))
    return decide(later, rule, now, now).next
