"""What a stream answers to a publish, and when it is worth asking again."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, TypeVar

from ..backoff import jittered
from ..errors import ConnectionLost, NoResponders, PublishRefused, RequestTimeout
from ..wire import Msg

__all__ = ("ONE_TRY", "Enqueued", "is_passing", "pause_after", "read_confirmation")

T = TypeVar("T")

# What a leader election, an overload, or a copy of the same message under way answer: worth repeating.
_PASSING_CODES = frozenset((10008, 10023, 10158, 10163, 10167))
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0
# Seconds for one try. A core subscriber on the subject hides the 503: then there is only silence (nats.go issue 1781).
ONE_TRY = 5.0


class Enqueued(NamedTuple):
    """A message is stored in `stream` as `sequence`; or, when `duplicate`, had been stored before under the same id."""

    stream: str
    sequence: int
    duplicate: bool


# Streams, by all that their confirmations say before the sequence, which is the last and nearly always all that
# differs: so each is read as JSON once, and not with every message. That takes four times as long.
_streams: dict[bytes, str] = {}
_MOST_STREAMS = 256
# What a stranger answers may be long, and shall neither be kept nor be a number that takes long to read.
_LONGEST_HEAD = 1024
_MOST_DIGITS = 20


def read_confirmation(subject: str, reply: Msg) -> Enqueued:
    """Read the answer to a message that was published to `subject`.

    Raises:
        PublishRefused: an error, or something that is no PubAck: then a subscriber answered instead of a stream.
    """
    head, _, tail = reply.data.rpartition(b":")
    number = tail[:-1]
    if head in _streams and number.isdigit() and len(number) <= _MOST_DIGITS and tail.endswith(b"}"):
        return Enqueued(_streams[head], int(number), False)

    try:
        fields = json.loads(reply.data)
        error = fields.get("error")
        if error is not None:
            raise PublishRefused(
                subject, _checked(int, error.get("err_code", 0)), _checked(str, error.get("description", ""))
            )

        enqueued = Enqueued(
            _checked(str, fields["stream"]),
            _checked(int, fields["seq"]),
            _checked(bool, fields.get("duplicate", False)),
        )
    # The last for brackets without end.
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise PublishRefused(
            subject, 0, f"the answer is no confirmation of a stream: {reply.data[:80]!r}"
        ) from None

    if len(fields) == 2 and len(head) <= _LONGEST_HEAD and tail == b"%d}" % enqueued.sequence:
        if len(_streams) >= _MOST_STREAMS:
            _streams.clear()

        _streams[head] = enqueued.stream

    return enqueued


def _checked(kind: type[T], value: Any) -> T:
    # A bool is an int, but no sequence.
    if type(value) is not kind:
        raise TypeError

    return value


def is_passing(error: Exception) -> bool:
    """Whether the same publish may be taken a moment later."""
    if isinstance(error, PublishRefused):
        return error.err_code in _PASSING_CODES

    return isinstance(error, NoResponders | ConnectionLost | RequestTimeout)


def pause_after(tries: int) -> float:
    """Return the seconds to wait before the next try; `tries` counts from 0."""
    return jittered(tries, first=_FIRST_WAIT, most=_LONGEST_WAIT)
