"""What a codec is, and what the built-in ones share."""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import uuid
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Protocol, runtime_checkable

__all__ = ("BuiltIn", "Codec", "reason", "unsupported")

_ADVICE: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((date, time), "send isoformat()"),
    (timedelta, "send total_seconds()"),
    ((Decimal, uuid.UUID, pathlib.PurePath), "send str() of it"),
    ((set, frozenset), "send list() of it"),
    (enum.Enum, "send its .value"),
)


@runtime_checkable
class Codec(Protocol):
    """Turns a payload into bytes and back. Any object with these four will do.

    It is called from several threads at once and must not care.
    """

    @property
    def name(self) -> str:
        """A short name, used in error texts."""
        ...

    @property
    def content_type(self) -> str:
        """The `Content-Type` header that goes with the bytes."""
        ...

    def encode(self, value: object) -> bytes:
        """Return the bytes of `value`.

        Raises:
            EncodeError: this codec cannot carry the value. No other exception.
        """
        ...

    def decode(self, data: bytes) -> Any:
        """Return the value that `data` stands for.

        Raises:
            DecodeError: the bytes are not of this format, whatever they are. No other exception.
        """
        ...


class BuiltIn:
    """A codec of ours: one instance, which pickles and copies to itself."""

    __slots__ = ()

    name: ClassVar[str]
    content_type: ClassVar[str]

    def __repr__(self) -> str:
        return f"codecs.{self._global_name}"

    def __reduce__(self) -> str:
        # A string tells pickle: look that name up in the module of the class.
        return self._global_name

    @property
    def _global_name(self) -> str:
        return self.name.upper()


def unsupported(value: object) -> str:
    """Say that a value of this type cannot be carried and, where we know, what to send instead."""
    advice = _advice(value)
    sentence = f"{type(value).__qualname__} is not supported"
    return f"{sentence}; {advice}" if advice else sentence


def reason(error: Exception) -> str:
    """Return what an exception says; some say nothing but their type."""
    return str(error) or type(error).__name__


def _advice(value: object) -> str | None:
    for types, advice in _ADVICE:
        if isinstance(value, types):
            return advice

    if isinstance(value, type):
        return "it is a class, not a value"

    if dataclasses.is_dataclass(value):
        return "send dataclasses.asdict() of it"

    if hasattr(type(value), "model_dump"):
        return "send its model_dump()"

    return None
