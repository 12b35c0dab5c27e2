"""What one process declares: the terms, and the functions that no record can hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from .._groups import text_of
from ..codecs import MSGPACK, Codec
from ..errors import ScheduleError
from ..jobs import NOT_BEFORE, SCHEDULE_ID, SCHEDULED_FOR, JobDef
from ..units import utc_text
from ._ledger import TickJob
from ._record import Record
from ._rules import Rule
from ._schedule import Schedule, rule_of
from ._terms import Terms, terms_of

__all__ = ("Declaration", "declare", "job_at")


@dataclass(frozen=True, eq=False)
class Declaration:
    """A schedule as this process has it."""

    id: str
    terms: Terms
    version: int
    rule: Rule
    codec: Codec
    payload: Callable[[datetime], Any] | None
    """When the payload is a function."""

    def rule_for(self, terms: Terms) -> Rule | None:
        """Return the rule that is stored; None when it needs a function that this process does not have.

        Raises:
            Malformed: it is stored in a form that we do not know.
        """
        if terms.payload_function not in ("", self.terms.payload_function):
            return None

        if (terms.rule, terms.tz) == (self.terms.rule, self.terms.tz):
            return self.rule

        return None if terms.needs_function and not terms.payload_function else terms.parsed_rule()

    def job_of(self, record: Record, tick: datetime) -> TickJob:
        """Return the job for a tick of a stored schedule, whose functions this process has."""
        return _job(record, tick, self._payload(record.terms, tick))

    def _payload(self, terms: Terms, tick: datetime) -> bytes:
        if terms.payload is not None:
            return terms.payload

        assert self.payload is not None
        try:
            payload = self.payload(tick.astimezone(ZoneInfo(terms.tz)))
        except Exception as error:
            reason = f"{terms.payload_function} raised {type(error).__qualname__}: {text_of(error)}"
            raise ScheduleError("payload", reason, self.id) from error

        return self.codec.encode(payload)


def declare(schedule: Schedule[Any], stream: str) -> Declaration:
    """Return what `schedule` declares, for jobs in `stream`. Raises as `terms_of`."""
    target = schedule.target
    return Declaration(
        id=schedule.id,
        terms=terms_of(schedule, stream),
        version=schedule.version,
        rule=rule_of(schedule),
        codec=target.encoder if isinstance(target, JobDef) else MSGPACK,
        payload=schedule.payload if callable(schedule.payload) else None,
    )


def job_at(record: Record, tick: datetime) -> TickJob:
    """Return the job for a tick, for a process that has declared nothing.

    Raises:
        ScheduleError: its payload is made by a function.
    """
    terms = record.terms
    if terms.payload is None:
        reason = f"is made by {terms.payload_function}, which this processor has not declared"
        raise ScheduleError("payload", reason, record.id)

    return _job(record, tick, terms.payload)


def _job(record: Record, tick: datetime, data: bytes) -> TickJob:
    terms = record.terms
    headers = {
        "Nats-Msg-Id": f"{record.id}:{utc_text(tick)}",
        "Nats-Expected-Stream": terms.stream,
        "Content-Type": terms.content_type,
        SCHEDULE_ID: record.id,
        SCHEDULED_FOR: utc_text(tick),
    }
    if terms.jitter:
        headers[NOT_BEFORE] = utc_text(tick + timedelta(seconds=_jitter(record.id, tick, terms.jitter)))

    return TickJob(terms.subject, headers, data)


def _jitter(id: str, tick: datetime, most: float) -> float:
    """Return the same for the same tick, whoever enqueues it."""
    return random.Random(f"{id} {tick.timestamp()}").uniform(0.0, most)
