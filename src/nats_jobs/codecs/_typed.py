"""Payloads of a type of yours: checked when they are enqueued, and again before a handler is given them."""

from __future__ import annotations

import typing
from importlib.util import find_spec
from typing import Any, Protocol

from ..errors import DecodeError, EncodeError, UsageError
from ._base import Codec, reason
from ._msgpack import MSGPACK

__all__ = ("TypedCodec", "typed")


def typed(kind: Any, codec: Codec = MSGPACK) -> TypedCodec:
    """Return a codec for payloads of one type: `JobDef(..., codec=typed(Order))`.

    `enqueue` refuses what is not an `Order`. A handler is given an `Order`; a message that does not make one
    becomes a dead letter, `undecodable`, with what the validator says. The bytes are those of `codec`, so other
    programs read and write them as before; also a message in another format we know makes an `Order`.

    Args:
        kind: a model of pydantic, a `msgspec.Struct`, a class of attrs, a dataclass, a `TypedDict`, or a type made
            of these, such as `list[Order]`. Its own library checks a model and a Struct; for the others, msgspec or
            pydantic must be installed (for attrs, msgspec).
        codec: how its fields are written: MSGPACK or JSON.

    Raises:
        UsageError: a type that cannot be checked, or nothing is installed that could check it.
    """
    return TypedCodec(kind, _validator_of(kind), codec)


class _Validator(Protocol):
    """Takes a value apart into dicts, lists and scalars, and makes one of such. Both raise what they like."""

    def to_plain(self, value: object) -> object: ...

    def from_plain(self, plain: object) -> object: ...


class TypedCodec:
    """What `typed` returns."""

    __slots__ = ("_class", "_codec", "_kind", "_name", "_validator")

    def __init__(self, kind: Any, validator: _Validator, codec: Codec) -> None:
        self._kind = kind
        self._name = _name_of(kind)
        self._class = kind if isinstance(kind, type) and not typing.is_typeddict(kind) else object
        self._validator = validator
        self._codec = codec

    @property
    def name(self) -> str:
        return f"{self._name} in {self._codec.name}"

    @property
    def content_type(self) -> str:
        return self._codec.content_type

    def __repr__(self) -> str:
        return f"codecs.typed({self._name}, {self._codec!r})"

    def carried_by(self, codec: Codec) -> TypedCodec:
        """Return one for the same type whose bytes are those of `codec`."""
        return TypedCodec(self._kind, self._validator, codec)

    def encode(self, value: object) -> bytes:
        if not isinstance(value, self._class):
            raise EncodeError(self.name, f"{type(value).__qualname__} is not {self._name}")

        try:
            plain = self._validator.to_plain(value)
            # Its fields may have been set to anything since it was made.
            self._validator.from_plain(plain)
        except Exception as error:
            raise EncodeError(self.name, reason(error)) from error

        return self._codec.encode(plain)

    def decode(self, data: bytes) -> Any:
        plain = self._codec.decode(data)
        try:
            return self._validator.from_plain(plain)
        except Exception as error:
            raise DecodeError(self.name, reason(error)) from error


class _Pydantic:
    def __init__(self, kind: Any) -> None:
        import pydantic

        self._adapter: Any = pydantic.TypeAdapter(kind)
        self._invalid = pydantic.ValidationError

    def to_plain(self, value: object) -> object:
        return self._adapter.dump_python(value, mode="json", by_alias=True, warnings="error")

    def from_plain(self, plain: object) -> object:
        try:
            return self._adapter.validate_python(plain)
        except self._invalid as invalid:
            raise ValueError("; ".join(map(_in_words, invalid.errors(include_url=False)))) from invalid


class _Msgspec:
    def __init__(self, kind: Any) -> None:
        import msgspec

        self._kind = kind
        self._msgspec: Any = msgspec
        msgspec.json.Decoder(kind)  # refuses a type that it cannot check

    def to_plain(self, value: object) -> object:
        return self._msgspec.to_builtins(value, str_keys=True)

    def from_plain(self, plain: object) -> object:
        return self._msgspec.convert(plain, self._kind, str_keys=True)


def _validator_of(kind: Any) -> _Validator:
    for library, make in _candidates(kind):
        if find_spec(library) is None:
            continue

        try:
            return make(kind)
        except Exception as error:
            raise UsageError(
                f"{library} cannot check payloads of {_name_of(kind)}: {reason(error)}"
            ) from error

    raise UsageError(
        f"nothing is installed that checks payloads of {_name_of(kind)}; install msgspec or pydantic"
    )


def _candidates(kind: Any) -> list[tuple[str, type[_Pydantic | _Msgspec]]]:
    """Return who may check this type, the best first: a model by its own library, the rest by the quicker one."""
    pydantic, msgspec = ("pydantic", _Pydantic), ("msgspec", _Msgspec)
    if any(hasattr(part, "__pydantic_validator__") for part in _parts(kind)):
        return [pydantic]

    if any(hasattr(part, "__struct_fields__") for part in _parts(kind)):
        return [msgspec]

    return [msgspec, pydantic]


def _parts(kind: Any) -> list[Any]:
    """Return the type, and what it is made of: `Order` for `list[Order]`."""
    return [kind, *(part for argument in typing.get_args(kind) for part in _parts(argument))]


def _name_of(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) and not typing.get_args(kind) else repr(kind)


def _in_words(detail: Any) -> str:
    place = ".".join(map(str, detail["loc"]))
    return f"{place}: {detail['msg']}" if place else str(detail["msg"])
