"""What a stream answers to a publish."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from .._untrusted import field_of, parse_json, shorten
from ..errors import Malformed, PublishRefused, UsageError
from ..wire import Msg

__all__ = ("Enqueued", "parse_pub_ack")


class Enqueued(NamedTuple):
    """A message is stored in `stream` as `sequence`; or, when `duplicate`, had been stored before under the same id."""

    stream: str
    sequence: int
    duplicate: bool

    async def cancel(self) -> bool:
        """Cancel a delayed job that was not performed yet. See `ScheduledJob.cancel`.

        Raises:
            UsageError: it was enqueued without a delay.
        """
        raise UsageError(self._not_delayed)

    async def reschedule(self, at: datetime) -> bool:
        """Give a delayed job another time; False when it is too late. See `ScheduledJob.reschedule`.

        Raises:
            UsageError: it was enqueued without a delay.
        """
        raise UsageError(self._not_delayed)

    @property
    def _not_delayed(self) -> str:
        return f"job {self.sequence} of stream {self.stream!r} was enqueued without a delay; a worker may have it already"


# Streams, by all that their acks say before the sequence, which is the last and nearly always all that
# differs: so each is read as JSON once, and not with every message. That takes four times as long.
_streams: dict[bytes, str] = {}
_MAX_STREAMS = 256
# What a stranger answers may be long, and shall neither be kept nor be a number that takes long to read.
_MAX_HEAD_BYTES = 1024
_MAX_DIGITS = 20
_WHAT = "the answer to a publish"


def parse_pub_ack(subject: str, reply: Msg) -> Enqueued:
    """Read the answer to a message that was published to `subject`.

    Raises:
        PublishRefused: an error, or something that is not a PubAck: then a subscriber answered instead of a stream.
    """
    head, _, tail = reply.data.rpartition(b":")
    number = tail[:-1]
    if head in _streams and number.isdigit() and len(number) <= _MAX_DIGITS and tail.endswith(b"}"):
        return Enqueued(_streams[head], int(number), False)

    try:
        ack = parse_json(reply.data, _WHAT)
        if error := field_of(ack, "error", dict, _WHAT, {}):
            err_code = field_of(error, "err_code", int, _WHAT, 0)
            raise PublishRefused(subject, err_code, field_of(error, "description", str, _WHAT, ""))

        stream, sequence, duplicate = _fields(ack)
    except Malformed:
        raise PublishRefused(
            subject, 0, f"the answer is not a confirmation of a stream: {shorten(reply.data)}"
        ) from None

    if len(ack) == 2 and len(head) <= _MAX_HEAD_BYTES and tail == b"%d}" % sequence:
        if len(_streams) >= _MAX_STREAMS:
            _streams.clear()

        _streams[head] = stream

    return Enqueued(stream, sequence, duplicate)


def _fields(ack: object) -> tuple[str, int, bool]:
    sequence = field_of(ack, "seq", int, _WHAT)
    if not 0 <= sequence < 10**_MAX_DIGITS:
        raise Malformed(_WHAT, "a sequence out of range")

    return field_of(ack, "stream", str, _WHAT), sequence, field_of(ack, "duplicate", bool, _WHAT, False)
