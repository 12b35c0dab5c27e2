"""Bytes in, frames out. Knows no clock, socket or task.

Strategy: work on the chunk as it came, with `find` and slices, and copy only what becomes part of a
message. What is left of a chunk when a frame is cut is kept aside; while a payload is incomplete its
length is known, so further chunks are collected without looking at them. At most one message is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from .._untrusted import parse_json
from ..errors import Malformed, ProtocolError
from ._messages import Msg
from ._table import Table

__all__ = ("Err", "Frame", "Info", "Ok", "Parser", "Ping", "Pong")

# INFO grows with the number of servers in a cluster; everything else is below 4 KiB (max_control_line).
_MAX_LINE = 64 * 1024
# The server's own ceiling for max_payload is 64 MiB; a length above this is a lie.
_MAX_MESSAGE = 65 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Info:
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Err:
    text: str


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class Pong:
    pass


@dataclass(frozen=True, slots=True)
class Ok:
    pass


Frame: TypeAlias = Msg | Info | Err | Ping | Pong | Ok

_PING, _PONG, _OK = Ping(), Pong(), Ok()


class Parser:
    """Turns the server's bytes into frames, however they were cut."""

    def __init__(self) -> None:
        # A peer that drips bytes must not make us hold an object for each.
        self._kept = bytearray()
        self._needed = 0
        # The same few come again and again: each is checked when it is new.
        self._numbers = Table(_number)
        self._failure: ProtocolError | None = None

    @property
    def idle(self) -> bool:
        """Whether everything that was fed has come out as frames."""
        return not self._kept

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes. Exhaust it before feeding again.

        Raises:
            ProtocolError: the server broke the protocol. Every later call raises again; throw the
                connection away. Any other exception is our bug.
        """
        if self._failure is not None:
            raise self._failure

        if self._kept:
            self._kept += data
            if len(self._kept) < (self._needed or (0 if b"\n" in data else _MAX_LINE + 1)):
                return

            data = bytes(self._kept)
            self._kept.clear()

        position = self._needed = 0
        try:
            while (line_end := data.find(b"\r\n", position)) >= 0:
                words = data[position:line_end].split()
                operation = words[0].upper() if words else b""
                if operation == b"MSG" or operation == b"HMSG":
                    message, end = self._message(data, words, operation == b"HMSG", line_end + 2)
                    if message is None:
                        self._needed = end - position
                        break

                    yield message
                else:
                    end = line_end + 2
                    yield _control(operation, data[position:line_end])

                position = end
            else:
                if len(data) - position > _MAX_LINE:
                    raise ProtocolError(f"a control line of more than {_MAX_LINE} bytes")

        except ProtocolError as failure:
            self._failure = failure
            raise

        if position < len(data):
            self._kept += data[position:] if position else data

    def _message(
        self, data: bytes, words: list[bytes], with_headers: bool, start: int
    ) -> tuple[Msg | None, int]:
        """Read `MSG subject sid [reply] total` or `HMSG subject sid [reply] header total`, and what follows it.

        Return it, or None while it is incomplete, and where it ends.
        """
        fixed = 5 if with_headers else 4
        if not fixed <= len(words) <= fixed + 1:
            raise ProtocolError(f"a message line with {len(words)} fields: {_shown(b' '.join(words))}")

        numbers = self._numbers
        total = numbers[words[-1]]
        header = numbers[words[-2]] if with_headers else 0
        if total > _MAX_MESSAGE:
            raise ProtocolError(f"a length of {total} bytes")

        if header > total:
            raise ProtocolError(f"a header of {header} bytes in a message of {total}")

        end = start + total
        if len(data) < end + 2:
            return None, end + 2

        if data[end : end + 2] != b"\r\n":
            raise ProtocolError(f"a message of {total} bytes does not end where it says")

        message = Msg(
            words[1].decode("utf-8", "surrogateescape"),
            numbers[words[2]],
            words[3].decode("utf-8", "surrogateescape") if len(words) > fixed else "",
            data[start : start + header] if header else b"",
            data[start + header : end],
        )
        return message, end + 2


def _control(op: bytes, line: bytes) -> Frame:
    match op:
        case b"":
            raise ProtocolError("an empty control line")
        case b"PING":
            return _PING
        case b"PONG":
            return _PONG
        case b"+OK":
            return _OK
        case b"-ERR":
            return Err(line.strip()[4:].strip().decode("utf-8", "replace").strip("'"))
        case b"INFO":
            return Info(_info_fields(line.strip()[4:]))
        case _:
            raise ProtocolError(f"unknown operation: {_shown(line)}")


def _info_fields(text: bytes) -> dict[str, Any]:
    try:
        fields = parse_json(text, "INFO", max_bytes=_MAX_LINE)
    except Malformed as error:
        raise ProtocolError(str(error)) from error

    if not isinstance(fields, dict):
        raise ProtocolError(f"INFO is not a JSON object: {_shown(text)}")

    return fields


def _number(written: bytes) -> int:
    # isdigit first: int() takes signs, blanks and underscores, and thousands of digits.
    if not written.isdigit() or len(written) > 18:
        raise ProtocolError(f"not a number: {_shown(written)}")

    return int(written)


def _shown(text: bytes) -> str:
    return repr(text[:80])
