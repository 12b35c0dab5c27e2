"""Tells other workers which delivery of a message we hold.

Whoever still works on an earlier delivery has lost it, and perhaps cannot know: its clock stood still, or
the server forgot an extension when it crashed, and goes on confirming extensions to whoever asks. So a
message that is delivered again is announced at once, and after a broken link everybody announces what it
holds: who has a later delivery answers with that. These are core NATS messages, at most once; they make
an overlap short, and are no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import NatsJobsError
from ..jetstream import Delivery
from ..wire import Connection, Msg

__all__ = ("Claims",)


class Claims:
    """Announces, and listens to announcements, for one consumer.

    Args:
        claimed: called with the sequence and the attempt that somebody announced, perhaps ourselves.
        held: returns the deliveries in hand.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        *,
        claimed: Callable[[int, int], None],
        held: Callable[[], Iterable[Delivery]],
    ) -> None:
        self._subject = f"nats_jobs.claims.{stream}.{consumer}"
        self._connection = connection
        self._claimed = claimed
        self._held = held
        self._sid = connection.listen(self._subject, self._hear, renewed=self._announce_all)

    def announce(self, delivery: Delivery) -> None:
        """Say that we hold this delivery."""
        self._say(delivery.sequence, delivery.attempt)

    def none_left(self, sequence: int, deliveries: int) -> None:
        """Say that nobody holds this message, which was delivered so often: as if there were one delivery more."""
        self._say(sequence, deliveries + 1)

    def close(self) -> None:
        """Hear nothing more."""
        self._connection.drop(self._sid)

    def _say(self, sequence: int, attempt: int) -> None:
        try:
            self._connection.send(self._subject, "", b"", b"%d %d" % (sequence, attempt))
        except NatsJobsError:
            # Without a link there is nobody to tell; with the next one, all are told.
            return

    def _announce_all(self) -> None:
        for delivery in self._held():
            self.announce(delivery)

    def _hear(self, message: Msg) -> None:
        sequence, _, attempt = message.data.partition(b" ")
        if sequence.isdigit() and attempt.isdigit():
            self._claimed(int(sequence), int(attempt))
