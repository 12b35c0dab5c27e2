"""Schedules and ticks as text: rows of a list, a sheet for one, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import ScheduleError
from ..scheduler import Rule, ScheduleInfo, parse_rule
from ..units import utc_text
from ._formatting import printable

__all__ = ("as_json", "details", "row", "tick_as_json", "tick_row", "ticks_of")

_SHOWN_TICKS = 5


def ticks_of(rule: Rule, after: datetime) -> Iterator[datetime]:
    """Yield all ticks after a moment."""
    while (tick := rule.next(after)) is not None:
        yield tick
        after = tick


def tick_as_json(tick: datetime, tz: str) -> dict[str, str]:
    return {"tick": utc_text(tick), "local": tick.astimezone(ZoneInfo(tz)).isoformat()}


def tick_row(tick: datetime, tz: str) -> str:
    local = tick.astimezone(ZoneInfo(tz))
    place = f"{local.isoformat(' ')}  {local:%a}"
    return place if tz == "UTC" else f"{place}  {utc_text(tick)}"


def row(info: ScheduleInfo, width: int) -> str:
    """Return one line of the list, with the id in so many columns."""
    zone = "" if info.tz == "UTC" else f" {info.tz}"
    return f"{info.id.ljust(width)}  {info.rule}{zone}  {info.subject}  {info.count} jobs  {_state(info)}"


def details(info: ScheduleInfo) -> str:
    """Return what there is to know about a schedule, a fact on each line, and its coming ticks."""
    terms = info.terms
    facts = [
        ("id", info.id),
        ("rule", info.rule),
        *(("", text) for text in _explained(info)),
        ("zone", info.tz),
        ("subject", f"{info.subject}, stream {info.stream}"),
        ("payload", terms.payload_function or f"{len(terms.payload or b'')} bytes of {terms.content_type}"),
        ("catch up", f"{terms.catch_up}, {terms.max_catch_up} at most, none older than {terms.window:g} s"),
        ("overlap", terms.overlap),
        *(("jitter", f"{terms.jitter:g} s") for _ in range(bool(terms.jitter))),
        *(("start", utc_text(start)) for start in [terms.start] if start),
        *(("end", utc_text(end)) for end in [terms.end] if end),
        ("jobs", str(info.count) if terms.limit is None else f"{info.count} of {terms.limit}"),
        ("version", str(info.version)),
        ("declared at", utc_text(info.declared_at)),
        ("last tick", utc_text(info.last_tick) if info.last_tick else ""),
        ("", _state(info)),
        *(("next" if number == 0 else "", text) for number, text in enumerate(_coming(info))),
    ]
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name.ljust(width)}  {printable(value)}".rstrip() for name, value in facts)


def as_json(info: ScheduleInfo) -> str:
    """Return a schedule as one line of JSON; its payload in base64."""
    fields = dataclasses.asdict(info) | {"terms": None} | info.terms.as_json()
    del fields["terms"]
    return json.dumps({name: _json_of(value) for name, value in fields.items()})


def _json_of(value: Any) -> Any:
    return utc_text(value) if isinstance(value, datetime) else value


def _state(info: ScheduleInfo) -> str:
    if info.paused:
        return f"paused: {info.note}" if info.note else "paused"

    return f"next {info.next_tick:%Y-%m-%d %H:%M:%S} UTC" if info.next_tick else "next unknown"


def _rule(info: ScheduleInfo) -> Rule | None:
    try:
        return parse_rule(info.rule, info.tz)
    except ScheduleError:
        return None  # A function, or from a newer version.


def _explained(info: ScheduleInfo) -> list[str]:
    rule = _rule(info)
    return [rule.explain()] if rule is not None else []


def _coming(info: ScheduleInfo) -> list[str]:
    rule, first = _rule(info), info.next_tick
    if rule is None or first is None:
        return []

    later = ticks_of(rule, first)
    inside = (tick for tick in later if info.terms.end is None or tick <= info.terms.end)
    return [tick_row(tick, info.tz) for tick in (first, *islice(inside, _SHOWN_TICKS - 1))]
