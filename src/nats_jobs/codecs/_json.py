"""JSON as RFC 8259 has it: UTF-8, and no NaN."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

from ..errors import DecodeError, EncodeError
from ._base import BuiltIn, Codec, reason, unsupported

__all__ = ("JSON",)


class _Json(BuiltIn):
    """JSON: None, bool, int, float, str, list, and dicts whose keys become strings.

    A tuple comes back as a list. NaN and infinity are refused both ways. So is what JSON has no form for, above all
    a datetime: a text that was a datetime would not come back as one.
    """

    __slots__ = ()

    name = "json"
    content_type = "application/json"

    def encode(self, value: object) -> bytes:
        try:
            return _ENCODER.encode(value).encode()
        except EncodeError:
            raise
        except RecursionError as error:
            raise EncodeError(self.name, "it is nested too deeply") from error
        except UnicodeEncodeError as error:
            raise EncodeError(self.name, "a string in it has half of a surrogate pair") from error
        except Exception as error:
            raise EncodeError(self.name, reason(error)) from error

    def decode(self, data: bytes) -> Any:
        try:
            # Decoded here: `json.loads` would also take UTF-16 and UTF-32.
            return _DECODER.decode(str(data, "utf-8"))
        except DecodeError:
            raise
        except RecursionError as error:
            raise DecodeError(self.name, "it is nested too deeply") from error
        except Exception as error:
            raise DecodeError(self.name, reason(error)) from error


def _refuse_value(value: object) -> NoReturn:
    if isinstance(value, datetime):
        raise EncodeError(_Json.name, "a datetime has no form in JSON; use MSGPACK, or send isoformat()")

    if isinstance(value, bytes | bytearray | memoryview):
        raise EncodeError(_Json.name, "bytes have no form in JSON; use MSGPACK or RAW")

    raise EncodeError(_Json.name, unsupported(value))


def _refuse_constant(text: str) -> NoReturn:
    raise DecodeError(_Json.name, f"{text} is not JSON")


# Both keep no state between calls, so threads may share them.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_refuse_value)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)

JSON: Codec = _Json()
