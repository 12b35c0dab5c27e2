"""MessagePack, with moments in time as its timestamp extension."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack

from ..errors import DecodeError, EncodeError
from ._base import BuiltIn, Codec, reason, unsupported

__all__ = ("MSGPACK",)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The packer would ask for 256 KiB each time; it grows by itself, and most payloads are small.
_FIRST_BUFFER_BYTES = 512

_AS_DATETIME = 3

# What msgpackr, the usual library of Node, writes of its own accord: `undefined` always, the rest on request.
_UNDEFINED = 0x00, b"\x00"
_RECORD = 0x72
_MSGPACKR_EXTENSIONS = {
    0x42: "BigInt",
    0x62: "bundled strings",
    0x65: "Error",
    0x69: "object reference",
    0x70: "object reference",
    0x73: "Set",
    0x74: "typed array",
    0x78: "RegExp",
}


_ALWAYS_DECODABLE = frozenset((type(None), bool, int, float, str, bytes))


class _Msgpack(BuiltIn):
    """MessagePack: None, bool, int of 64 bits, float, str, bytes, list, dict, and datetimes that have a zone.

    - A datetime comes back as the same moment in UTC, to the microsecond. It is written as MessagePack's timestamp,
      so a `Date` of Node's msgpackr or @msgpack/msgpack is read as a datetime, and ours as a `Date`.
      A datetime without tzinfo is refused: a guessed zone would be wrong somewhere.
    - A tuple comes back as a list, a bytearray or memoryview as bytes.
    - The keys of a dict may be anything that can be a key after the round trip: not only strings, but no tuples.
    - `undefined` of msgpackr is read as None. Its `pack()` is read as it is; a `Packr` needs `useRecords: false`.
      It writes whole numbers beyond 32 bits as floats, and so they arrive.
    - NaN and infinity are carried.
    """

    __slots__ = ()

    name = "msgpack"
    content_type = "application/msgpack"

    def encode(self, value: object) -> bytes:
        try:
            # A packer of its own for each call: one that is shared breaks when two threads meet in it, and would
            # keep the memory of the largest payload for ever.
            packer = msgpack.Packer(default=_convert, datetime=True, buf_size=_FIRST_BUFFER_BYTES)
            encoded: bytes = packer.pack(value)
        except EncodeError:
            raise
        except Exception as error:
            raise EncodeError(self.name, reason(error)) from error

        if type(value) not in _ALWAYS_DECODABLE:
            self._check_decodable(encoded)

        return encoded

    def _check_decodable(self, encoded: bytes) -> None:
        """Refuse what would come back as an error: a tuple as a key, which is a list by then, or a moment beyond a year.

        The packer tells nothing of them, and looking for them here takes longer than decoding.
        """
        try:
            self.decode(encoded)
        except DecodeError as error:
            raise EncodeError(self.name, f"it could not be decoded: {error.reason}") from None

    def decode(self, data: bytes) -> Any:
        try:
            # msgpack bounds every length by the number of bytes there are, and the nesting by 1024.
            return msgpack.unpackb(
                data, timestamp=_AS_DATETIME, strict_map_key=False, ext_hook=_read_extension
            )
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(self.name, _why_undecodable(error)) from error


def _convert(value: object) -> object:
    """Handle what the packer does not know: subclasses of datetime, and refusals in words that help."""
    if isinstance(value, datetime):
        return _timestamp(value)

    if isinstance(value, int):
        raise EncodeError(_Msgpack.name, "an int must fit into 64 bits; send str() of it")

    raise EncodeError(_Msgpack.name, unsupported(value))


def _timestamp(moment: datetime) -> msgpack.Timestamp:
    if moment.utcoffset() is None:
        raise EncodeError(
            _Msgpack.name, "a datetime needs a tzinfo, such as datetime.now(UTC); its zone is never guessed"
        )

    seconds, rest = divmod(moment - _EPOCH, timedelta(seconds=1))
    return msgpack.Timestamp(seconds, rest.microseconds * 1000)


def _read_extension(code: int, content: bytes) -> None:
    if (code, content) == _UNDEFINED:
        return

    if code == _RECORD:
        raise DecodeError(
            _Msgpack.name, "it holds records of msgpackr; pack it with useRecords: false, or with its pack()"
        )

    raise DecodeError(_Msgpack.name, f"extension type {code} is not known{_guess(code)}")


def _guess(code: int) -> str:
    kind = _MSGPACKR_EXTENSIONS.get(code)
    return f"; msgpackr's {kind}? Pack it without moreTypes, structuredClone and the like" if kind else ""


def _why_undecodable(error: Exception) -> str:
    match error:
        case msgpack.ExtraData():
            return f"{len(error.extra)} more bytes follow the value"
        case msgpack.StackError():
            return "it is nested too deeply"
        case msgpack.FormatError():
            return "that is not MessagePack"
        case UnicodeDecodeError():
            return "a string in it is not UTF-8"
        case OverflowError():
            return "a timestamp in it is outside the years 1 to 9999"
        case TypeError():
            return f"a map key in it cannot be a key in Python ({error})"
        case _:
            return reason(error)


MSGPACK: Codec = _Msgpack()
