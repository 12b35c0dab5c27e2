"""Tells other workers which delivery of a message we hold.

Whoever still works on an earlier delivery has lost it, and perhaps cannot know: its clock stood still, or
the server forgot an extension when it crashed, and goes on confirming extensions to whoever asks. So a
message that is delivered again is announced at once, and after a broken link everybody announces what it
holds: who has a later delivery answers with that. A server that crashes may even forget the delivery itself,
and make the same one to somebody else; then nobody's is the later one, and one of the two gives way, whichever.
Such a delivery does not look like a repeated one. So whoever holds a job from before a broken link announces
it with each extension. These are core NATS messages, at most once; they make an overlap short, and are no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import NatsJobsError
from ..jetstream import Delivery
from ..wire import Connection, Msg, unique_token

__all__ = ("Claims",)


class Claims:
    """Announces, and listens to announcements, for one consumer.

    Args:
        claimed: called with the sequence and the attempt that somebody else announced, and whether it is for us
            to give way when that is our attempt, too.
        doubt: called after a broken link; returns the deliveries in hand.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        *,
        claimed: Callable[[int, int, bool], None],
        doubt: Callable[[], Iterable[Delivery]],
    ) -> None:
        self._subject = f"nats_jobs.claims.{stream}.{consumer}"
        self._connection = connection
        self._claimed = claimed
        self._doubt = doubt
        self._name = unique_token().encode()
        self._sid = connection.lowlevel.subscribe_nowait(
            self._subject, self._hear, on_resubscribed=self._announce_all
        )

    def announce(self, delivery: Delivery) -> None:
        """Say that we hold this delivery."""
        self._say(delivery.sequence, delivery.attempt, self._name)

    def none_left(self, sequence: int, deliveries: int) -> None:
        """Say that nobody holds this message, which was delivered so often: as if there were one delivery more.

        It is said to ourselves, too.
        """
        self._say(sequence, deliveries + 1, b"")

    def close(self) -> None:
        """Hear nothing more."""
        self._connection.lowlevel.unsubscribe(self._sid)

    def _say(self, sequence: int, attempt: int, name: bytes) -> None:
        try:
            self._connection.lowlevel.publish_nowait(
                self._subject, "", b"", b"%d %d %b" % (sequence, attempt, name)
            )
        except NatsJobsError:
            # Without a link there is nobody to tell; with the next one, all are told.
            return

    def _announce_all(self) -> None:
        for delivery in self._doubt():
            self.announce(delivery)

    def _hear(self, message: Msg) -> None:
        sequence, attempt, name = (*message.data.split(b" "), b"", b"", b"")[:3]
        if name != self._name and sequence.isdigit() and attempt.isdigit():
            self._claimed(int(sequence), int(attempt), name > self._name)
