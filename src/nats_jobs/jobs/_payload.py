"""From a delivery to the payload for its handler; or to the ending of an attempt whose handler is not called."""

from __future__ import annotations

from typing import Any

from .._groups import text_of
from ..codecs import RAW, Codec, TypedCodec, by_content_type
from ..errors import DecodeError, Malformed, NatsJobsError
from ..jetstream import Delivery
from ._definition import JobDef
from ._endings import Ending, Rejected, Snoozed
from ._limits import Limits
from ._not_before import seconds_to_wait

__all__ = ("Refused", "codec_for", "payload_of")


class Refused(Exception):
    """The handler is not called; `ending` is how the attempt ends instead."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


def payload_of(delivery: Delivery, defn: JobDef[Any], limits: Limits) -> object:
    """Decode what a handler is to be called with.

    Raises:
        Refused: it kills its workers, its time has not come, or it cannot be read.
    """
    if limits.is_crash_loop(delivery.attempt):
        error = NatsJobsError(
            f"delivered {delivery.attempt} times without coming to an end; it seems to kill its workers"
        )
        raise Refused(Rejected("crash-loop", error))

    if not delivery.has_headers:
        return _decoded(defn.decoder, delivery)

    try:
        wait = seconds_to_wait(delivery, defn.max_delay)
    except Malformed as malformed:
        raise Refused(Rejected("undecodable", malformed)) from None

    if wait:
        raise Refused(Snoozed(wait))

    # The second spelling is HTTP's habit; a client that copies a request's headers sends it.
    content_type = delivery.first_header(b"Content-Type") or delivery.first_header(b"content-type")
    return _decoded(codec_for(content_type, defn.decoder), delivery)


def codec_for(content_type: str | None, own: Codec) -> Codec:
    """Return what a message with this label is decoded with, for a definition that has a codec of its own."""
    if content_type is None or content_type == own.content_type:
        return own

    found = by_content_type(content_type) or RAW
    return own.carried_by(found) if isinstance(own, TypedCodec) else found


def _decoded(codec: Codec, delivery: Delivery) -> object:
    try:
        return codec.decode(delivery.data)
    except KeyboardInterrupt:
        raise
    except DecodeError as error:
        raise Refused(Rejected("undecodable", error)) from error
    except BaseException as error:
        # A codec of the user's: whatever it raises says that it cannot read this message.
        reason = f"{type(error).__qualname__}: {text_of(error)}"
        raise Refused(Rejected("undecodable", DecodeError(codec.name, reason))) from error
