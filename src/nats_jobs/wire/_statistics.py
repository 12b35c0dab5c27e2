"""What a connection counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Statistics",)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts since the connection was opened, over all its links.

    Attributes:
        messages_in: with replies; also those that nobody waited for any more.
        messages_out: queued for sending.
        bytes_in: read from the sockets, whole frames with everything in them.
        bytes_out: handed to the sockets.
        reconnects: how often the link came back, or was moved to another server.
        round_trip: seconds of the last answered ping (`flush`, a new subscription, the keepalive); None before the first.
    """

    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    reconnects: int
    round_trip: float | None
