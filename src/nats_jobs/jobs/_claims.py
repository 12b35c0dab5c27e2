"""Tells other workers that a message has been delivered again, to us.

Whoever still works on an earlier delivery has lost it, and perhaps cannot know: its clock stood still,
or a consumer leader forgot an extension. The announcement is a core NATS message, at most once; it makes
the overlap short, and is no lock.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import NatsJobsError
from ..jetstream import Delivery
from ..wire import Connection, Msg

__all__ = ("Claims",)


class Claims:
    """Announces, and listens to announcements, for one consumer. `claimed` gets the sequence and the attempt."""

    def __init__(
        self, connection: Connection, stream: str, consumer: str, claimed: Callable[[int, int], None]
    ) -> None:
        self._subject = f"nats_jobs.claims.{stream}.{consumer}"
        self._connection = connection
        self._claimed = claimed
        self._sid = connection.listen(self._subject, self._heard)

    def announce(self, delivery: Delivery) -> None:
        """Say that this delivery is the one that counts."""
        try:
            self._connection.send(self._subject, "", b"", b"%d %d" % (delivery.sequence, delivery.attempt))
        except NatsJobsError:
            # Without a link there is nobody to tell.
            return

    def close(self) -> None:
        self._connection.drop(self._sid)

    def _heard(self, message: Msg) -> None:
        sequence, _, attempt = message.data.partition(b" ")
        if sequence.isdigit() and attempt.isdigit():
            self._claimed(int(sequence), int(attempt))
