"""The record of a schedule: what it says, and how far it has come. Every process follows the stored one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .._untrusted import field_of, parse_json, parse_moment
from ..errors import Malformed
from ..units import utc_text
from ._terms import Terms

__all__ = ("MAX_RECORD_BYTES", "Record", "dump_record", "load_record", "record_as_json", "record_from_json")

_WHAT = "the record of a schedule"
MAX_RECORD_BYTES = 16 * 1024 * 1024
_FORMAT = 1


@dataclass(frozen=True)
class Record:
    """One schedule, as it is stored."""

    id: str
    terms: Terms
    version: int
    declared_at: datetime
    since: datetime
    """When it was declared, replaced or resumed: ticks count from here, and from the last one."""

    last: datetime | None = None
    """The last tick that was enqueued or skipped."""

    count: int = 0
    """Jobs so far."""

    late_in_a_row: int = 0
    """How many of the last jobs were late."""

    job: int = 0
    """The sequence of the last job in its stream; 0 when there is none."""

    paused: bool = False
    note: str = ""
    """Why it is paused."""

    removed: bool = False

    @property
    def after(self) -> datetime:
        """The next tick is the first after this one."""
        return self.since if self.last is None else max(self.since, self.last)

    @property
    def is_used_up(self) -> bool:
        """Whether it has had all its jobs."""
        return self.terms.limit is not None and self.count >= self.terms.limit

    def replaced(self, terms: Terms, version: int, now: datetime) -> Record:
        """Return the record with other terms from `now` on."""
        return replace(self, terms=terms, version=version, since=now)


def dump_record(record: Record) -> bytes:
    """Return the form in which a record is stored."""
    return json.dumps(record_as_json(record), separators=(",", ":")).encode()


def load_record(data: bytes) -> Record:
    """Read a record, from whoever has written it.

    Raises:
        Malformed: it is none.
    """
    return record_from_json(parse_json(data, _WHAT, max_bytes=MAX_RECORD_BYTES))


def record_as_json(record: Record) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "id": record.id,
        "terms": record.terms.as_json(),
        "version": record.version,
        "digest": record.terms.digest,
        "declared_at": utc_text(record.declared_at),
        "since": utc_text(record.since),
        "last": utc_text(record.last) if record.last else None,
        "count": record.count,
        "late_in_a_row": record.late_in_a_row,
        "job": record.job,
        "paused": record.paused,
        "note": record.note,
        "removed": record.removed,
    }


def record_from_json(form: object) -> Record:
    """Read what `record_as_json` returned. Raises Malformed as `load_record`."""
    if (number := field_of(form, "format", int, _WHAT)) != _FORMAT:
        raise Malformed(_WHAT, f"of format {number}; {_FORMAT} is known")

    last = field_of(form, "last", str, _WHAT, "")
    return Record(
        id=field_of(form, "id", str, _WHAT),
        terms=Terms.from_json(field_of(form, "terms", dict, _WHAT)),
        version=field_of(form, "version", int, _WHAT),
        declared_at=parse_moment(field_of(form, "declared_at", str, _WHAT), _WHAT),
        since=parse_moment(field_of(form, "since", str, _WHAT), _WHAT),
        last=parse_moment(last, _WHAT) if last else None,
        count=field_of(form, "count", int, _WHAT),
        late_in_a_row=field_of(form, "late_in_a_row", int, _WHAT),
        job=field_of(form, "job", int, _WHAT),
        paused=field_of(form, "paused", bool, _WHAT),
        note=field_of(form, "note", str, _WHAT),
        removed=field_of(form, "removed", bool, _WHAT),
    )
