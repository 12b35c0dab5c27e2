"""Reads what came over the network within bounds, with one error for all that can be wrong with it.

Anybody who may publish on a subject decides what arrives there: numbers of five thousand digits, which
`int()` refuses with a ValueError of its own, and JSON whose brackets never end, which ends in a
RecursionError, now or when it is shown. Whoever reads a message calls these, catches `Malformed`, and
cannot be surprised by anything else.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

from .errors import Malformed

__all__ = ("field_of", "is_too_deep", "parse_json", "parse_moment", "parse_number", "shorten")

T = TypeVar("T")

# A sequence of the server is below 2**64, which has 20 digits.
_MAX_DIGITS = 20
_MAX_JSON_BYTES = 64 * 1024
_MAX_NUMBER = 2**64
# The server's own answers nest about eight deep (CONSUMER.INFO of a clustered consumer).
_MAX_DEPTH = 32
_MAX_SHOWN = 80


def parse_number(text: bytes | str, what: str) -> int:
    """Return the whole number, 0 or more, that `text` spells in ASCII digits.

    Args:
        text: at most 20 digits; no sign, blank or underscore, which `int()` would take.
        what: names it in the error.

    Raises:
        Malformed: it does not spell such a number.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise Malformed(what, f"not a number of at most {_MAX_DIGITS} digits: {shorten(text)}")

    return int(text)


def parse_moment(text: str, what: str) -> datetime:
    """Return the moment that `text` spells as ISO 8601, in UTC.

    Raises:
        Malformed: it spells none, has no time zone, or lies outside the years that a datetime has in UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass

    raise Malformed(what, f"not a moment with a time zone: {shorten(text)}")


def parse_json(
    data: bytes | str, what: str, *, max_bytes: int = _MAX_JSON_BYTES, max_depth: int = _MAX_DEPTH
) -> Any:
    """Return what `data` says as JSON.

    Args:
        data: UTF-8. `NaN` and `Infinity`, which are not JSON, are refused.
        what: names it in the error.
        max_depth: of nesting; below that of the interpreter's stack.
        max_bytes: refuse what is longer, in bytes (or characters of a text), before looking into it.

    Raises:
        Malformed: too long, too deep, or not JSON.
    """
    if len(data) > max_bytes:
        raise Malformed(what, f"{len(data):,} bytes long; at most {max_bytes:,} are read")

    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    # ValueError: not JSON, not UTF-8, or a number that is too long. RecursionError: brackets without end.
    except (ValueError, RecursionError) as error:
        raise Malformed(what, f"not JSON ({type(error).__name__}): {shorten(data)}") from None

    if is_too_deep(data, value, max_depth):
        raise Malformed(what, f"nested more than {max_depth} deep: {shorten(data)}")

    return value


def is_too_deep(data: bytes | str, value: Any, max_depth: int) -> bool:
    """Whether `value`, which is `data` in JSON, is nested deeper than that."""
    # Nearly everything that comes has too few brackets to be deep, and counting them costs next to nothing.
    openers = (
        data.count("{") + data.count("[") if isinstance(data, str) else data.count(b"{") + data.count(b"[")
    )
    if openers <= max_depth:
        return False

    level: list[Any] = [value]
    for _ in range(max_depth):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False

    return any(isinstance(value, dict | list | tuple) for value in level)


def field_of(fields: object, name: str, kind: type[T], what: str, default: T | None = None) -> T:
    """Return `fields[name]`, of exactly the type `kind`: a bool is not a number here, and no number is above 2**64.

    Args:
        fields: what `parse_json` returned.
        name: the key.
        kind: a type of JSON: `str`, `int`, `float`, `bool`, `list`, `dict`.
        what: names the whole in the error.
        default: returned when the key is missing or null. None: then that is an error.

    Raises:
        Malformed: `fields` is not an object, or the field is missing or of another type.
    """
    if not isinstance(fields, dict):
        raise Malformed(what, f"a JSON object is expected, not {type(fields).__name__}")

    value = fields.get(name)
    if value is None and default is not None:
        return default

    if type(value) is not kind or (isinstance(value, int) and abs(value) > _MAX_NUMBER):
        raise Malformed(what, f"{name!r} is {repr(value)[:_MAX_SHOWN]}; {kind.__name__} is expected")

    return value


def shorten(text: bytes | str) -> str:
    """Return how the beginning of `text` looks, for an error: printable, on one line, and short."""
    shown = repr(text[:_MAX_SHOWN])
    return shown if len(text) <= _MAX_SHOWN else f"{shown}…"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())

    return list(value) if isinstance(value, list | tuple) else []
