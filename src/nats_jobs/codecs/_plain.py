"""Payloads that need no format: text, and bytes as they are."""

from __future__ import annotations

from ..errors import DecodeError, EncodeError
from ._base import BuiltIn, Codec, reason

__all__ = ("RAW", "TEXT")


class _Text(BuiltIn):
    """One str, as UTF-8."""

    __slots__ = ()

    name = "text"
    content_type = "text/plain; charset=utf-8"

    def encode(self, value: object) -> bytes:
        if not isinstance(value, str):
            raise EncodeError(
                self.name, f"only str, not {type(value).__qualname__}; use MSGPACK, JSON or RAW"
            )

        try:
            return str.encode(value)
        except UnicodeEncodeError as error:
            raise EncodeError(self.name, "it has half of a surrogate pair") from error

    def decode(self, data: bytes) -> str:
        try:
            return str(data, "utf-8")
        except Exception as error:
            raise DecodeError(self.name, reason(error)) from error


class _Raw(BuiltIn):
    """Bytes, untouched. A bytearray or memoryview is sent too; what comes out is bytes."""

    __slots__ = ()

    name = "raw"
    content_type = "application/octet-stream"

    def encode(self, value: object) -> bytes:
        if type(value) is bytes:
            return value

        if not isinstance(value, bytes | bytearray | memoryview):
            raise EncodeError(self.name, _why_not_raw(value))

        try:
            return bytes(value)
        except Exception as error:
            raise EncodeError(self.name, reason(error)) from error

    def decode(self, data: bytes) -> bytes:
        return data


def _why_not_raw(value: object) -> str:
    if isinstance(value, str):
        return "only bytes, not str; encode it, or use TEXT"

    return f"only bytes, not {type(value).__qualname__}; use MSGPACK or JSON for values"


TEXT: Codec = _Text()
RAW: Codec = _Raw()
