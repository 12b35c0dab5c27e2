"""What a schedule says, in the form that is stored: the same for every process that reads it."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from typing import Any, cast

from .._untrusted import field_of, parse_moment
from ..codecs import MSGPACK
from ..errors import Malformed, ScheduleError
from ..jobs import JobDef, subject_of
from ..units import utc_text
from ._function_rule import is_function_text, name_function
from ._rules import Rule, parse_rule
from ._schedule import CatchUp, Overlap, Schedule, rule_of

__all__ = ("Terms", "terms_of")

_WHAT = "the record of a schedule"


@dataclass(frozen=True)
class Terms:
    """What decides when there is a tick, what becomes of it, and what its job is. All that is compared."""

    rule: str
    tz: str
    stream: str
    subject: str
    content_type: str
    payload: bytes | None
    """Encoded; None when it is made for each tick by `payload_function`."""

    payload_function: str
    catch_up: CatchUp
    window: float
    max_catch_up: int
    overlap: Overlap
    jitter: float
    start: datetime | None
    end: datetime | None
    limit: int | None

    @cached_property
    def digest(self) -> str:
        """Equal for equal terms."""
        return sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def needs_function(self) -> bool:
        """Whether only a process that has the functions can follow it."""
        return bool(self.payload_function) or is_function_text(self.rule)

    def parsed_rule(self) -> Rule:
        """Return the rule.

        Raises:
            Malformed: it is stored in a form that we do not know, or is a function.
        """
        try:
            return parse_rule(self.rule, self.tz)
        except ScheduleError as error:
            raise Malformed(_WHAT, str(error)) from None

    def as_json(self) -> dict[str, Any]:
        return {field.name: _json_of(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, form: object) -> Terms:
        """Read what `as_json` returned, from whoever has written it.

        Raises:
            Malformed: it is something else.
        """
        catch_up = field_of(form, "catch_up", str, _WHAT)
        overlap = field_of(form, "overlap", str, _WHAT)
        if catch_up not in ("none", "last", "all") or overlap not in ("allow", "skip"):
            raise Malformed(_WHAT, f"catch_up {catch_up!r}, overlap {overlap!r}")

        return cls(
            rule=field_of(form, "rule", str, _WHAT),
            tz=field_of(form, "tz", str, _WHAT),
            stream=field_of(form, "stream", str, _WHAT),
            subject=field_of(form, "subject", str, _WHAT),
            content_type=field_of(form, "content_type", str, _WHAT),
            payload=_optional(form, "payload", _parse_bytes),
            payload_function=field_of(form, "payload_function", str, _WHAT),
            catch_up=cast("CatchUp", catch_up),
            window=_seconds(form, "window"),
            max_catch_up=field_of(form, "max_catch_up", int, _WHAT),
            overlap=cast("Overlap", overlap),
            jitter=_seconds(form, "jitter"),
            start=_optional(form, "start", lambda text: parse_moment(text, _WHAT)),
            end=_optional(form, "end", lambda text: parse_moment(text, _WHAT)),
            limit=field_of(form, "limit", int, _WHAT, 0) or None,
        )


def terms_of(schedule: Schedule[Any], stream: str) -> Terms:
    """Return what `schedule` says, for jobs in `stream`.

    Raises:
        EncodeError: its payload cannot be encoded.
        ScheduleError: its payload is a function without a name.
    """
    target = schedule.target
    codec = target.encoder if isinstance(target, JobDef) else MSGPACK
    is_function = callable(schedule.payload)
    return Terms(
        rule=rule_of(schedule).text,
        tz=str(schedule.tz),
        stream=stream,
        subject=subject_of(target) if isinstance(target, JobDef) else target,
        content_type=codec.content_type,
        payload=None if is_function else codec.encode(schedule.payload),
        payload_function=name_of_payload(schedule.payload) if is_function else "",
        catch_up=schedule.catch_up,
        window=float(schedule.window),
        max_catch_up=schedule.max_catch_up,
        overlap=schedule.overlap,
        jitter=float(schedule.jitter),
        start=schedule.start,
        end=schedule.end,
        limit=schedule.limit,
    )


def name_of_payload(function: object) -> str:
    """Return what a record has in place of a payload's function.

    Raises:
        ScheduleError: it has no name of its own.
    """
    try:
        return name_function(function)
    except ScheduleError as error:
        raise ScheduleError("payload", error.reason) from None


def _json_of(value: Any) -> Any:
    if isinstance(value, datetime):
        return utc_text(value)

    return b64encode(value).decode() if isinstance(value, bytes) else value


def _optional(form: object, name: str, parse: Callable[[str], Any]) -> Any:
    text = field_of(form, name, str, _WHAT, "")
    return parse(text) if text or (isinstance(form, dict) and form.get(name) is not None) else None


def _parse_bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise Malformed(_WHAT, "the payload is not base64") from None


def _seconds(form: object, name: str) -> float:
    value = field_of(form, name, float, _WHAT)
    if not 0 <= value < 1e12:
        raise Malformed(_WHAT, f"{name} is {value!r}")

    return value
