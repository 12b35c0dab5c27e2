"""How jobs of one kind are sent at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..jetstream import Enqueued
from ..wire import encode_headers, unique_token

__all__ = ("Headers", "Route")

Headers: TypeAlias = dict[str, str | Sequence[str]]


class Route:
    """To be performed as soon as a worker is free.

    The headers of many jobs are the same but for the id: the block is built once, around a place for it.
    """

    def __init__(self, subject: str, headers: Headers, id_headers: Sequence[str] = ("Nats-Msg-Id",)) -> None:
        self.subject = subject
        place = unique_token()
        self._parts = encode_headers(dict.fromkeys(id_headers, place) | headers).split(place.encode())

    def address(self, id: bytes) -> tuple[str, bytes]:
        """Return subject and header block of a job."""
        return self.subject, id.join(self._parts)

    def confirmed(self, ack: Enqueued, id: bytes, data: bytes) -> Enqueued:
        """Return what the caller is given for a job that is stored."""
        return ack

    def earlier(self, error: Exception, id: bytes) -> Enqueued | None:
        """Return the job that waits already under the same id, if that is what the error says."""
        return None
