"""What a worker and the process of a job say to each other.

Each message is four bytes of length and its body. Requests are pickled: they come from us. What comes back is
plain MessagePack, and is not trusted: code that is not ours has run there.
"""

from __future__ import annotations

import struct
import traceback
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import msgpack

from .._groups import text_of
from ..errors import Malformed, NatsJobsError, Reject, RemoteError, Retry, Snooze, UsageError
from ._endings import Failed, Rejected, Snoozed, ending_of

__all__ = ("MAX_BYTES", "Facts", "Messages", "as_message", "error_of", "facts_of", "framed", "log_facts")

Facts: TypeAlias = dict[str, Any]

_LENGTH = struct.Struct(">I")
# Characters of a text, and bytes of a message from the other side.
_MAX_TEXT = 30_000
MAX_BYTES = 1 << 24


def as_message(facts: object) -> bytes:
    return framed(cast(bytes, msgpack.packb(facts, unicode_errors="replace")))


def framed(body: bytes) -> bytes:
    """Put the length before what is already encoded."""
    return _LENGTH.pack(len(body)) + body


@dataclass
class Messages:
    """Puts messages of facts together from what arrives in pieces."""

    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Facts | None:
        """Return the next message; None when it is not whole yet.

        Raises:
            Malformed: what came is not one.
        """
        buffer = self._buffer
        if len(buffer) < _LENGTH.size:
            return None

        (length,) = _LENGTH.unpack_from(buffer)
        if length > MAX_BYTES:
            raise Malformed("a message of a job's process", f"it has {length} bytes")

        end = _LENGTH.size + length
        if len(buffer) < end:
            return None

        body = bytes(buffer[_LENGTH.size : end])
        del buffer[:end]
        return _facts_in(body)


def _facts_in(body: bytes) -> Facts:
    try:
        facts = msgpack.unpackb(body)
    except Exception as error:
        raise Malformed("a message of a job's process", "it is not MessagePack") from error

    if not isinstance(facts, dict) or not isinstance(facts.get("kind"), str):
        raise Malformed("a message of a job's process", "it has no kind")

    return facts


def log_facts(name: str, level: int, text: str) -> Facts:
    return {"kind": "log", "name": name, "level": level, "text": text[:_MAX_TEXT]}


def facts_of(error: BaseException) -> Facts:
    """Describe what a handler raised, as plain data. What it asks for (Retry, Snooze, Reject) keeps its numbers."""
    if isinstance(error, Exception):
        match ending_of(None, False, error, None):
            case Rejected(_, inner):
                return {"kind": "reject", "text": text_of(inner)[:_MAX_TEXT]}
            case Snoozed(delay):
                return {"kind": "snooze", "delay": delay}
            case Failed(inner, delay) if isinstance(inner, Retry):
                return {"kind": "retry", "delay": delay}
            case Failed(inner):
                error = inner

    trace = "".join(traceback.format_exception(error))
    return {
        "kind": "raised",
        "type": type(error).__qualname__[:_MAX_TEXT],
        "text": text_of(error)[:_MAX_TEXT],
        "traceback": trace[-_MAX_TEXT:],
    }


def error_of(facts: Facts) -> NatsJobsError | None:
    """Return what to raise for how a handler ended there; None when it returned."""
    try:
        match facts:
            case {"kind": "returned"}:
                return None
            case {"kind": "retry", "delay": delay}:
                return Retry(delay)
            case {"kind": "snooze", "delay": delay}:
                return Snooze(delay)
            case {"kind": "reject", "text": str(text)}:
                return Reject(text)
            case {"kind": "raised", "type": str(type_name), "text": str(text), "traceback": str(trace)}:
                return RemoteError(type_name, text, trace)
    except (TypeError, UsageError):
        pass

    return Malformed("the outcome of a job's process", "it is of an unknown kind")
