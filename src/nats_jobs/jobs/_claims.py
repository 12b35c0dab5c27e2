"""Tells other workers which delivery of a message we hold.

A worker that still performs an earlier delivery has lost it, and perhaps cannot know: its clock stood still, or
the server forgot an extension when it crashed, and goes on confirming its extensions. So a
message that is delivered again is announced at once, and after a broken link everybody announces what it
holds: who has a later delivery answers with that. A server that crashes may even forget the delivery itself,
and make the same one to somebody else; then nobody's is the later one, and one of the two gives way, whichever.
Such a delivery does not look like a repeated one. So a worker that holds a job from before a broken link announces
it with each extension. The holder of a message answers to a claim of an earlier delivery, so a claim of delivery
0, which there is not, asks who holds it. These are core NATS messages, at most once; they make an overlap short, and are no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from .._untrusted import parse_number, shorten
from ..errors import Malformed, NatsJobsError
from ..jetstream import Delivery
from ..wire import Connection, Msg, unique_token
from ._emitter import logger

__all__ = ("Claims", "Question", "parse_claim")

# Two numbers of 20 digits and a name of ours are far below that.
_MAX_BYTES = 128


class Question:
    """Who holds a message? Its holder announces its delivery while this object is kept."""

    __slots__ = ("__weakref__", "attempt")

    def __init__(self) -> None:
        self.attempt = 0
        """The latest delivery that somebody announced; 0 before that."""


class Claims:
    """Announces, and listens to announcements, for one consumer.

    Args:
        on_claim: called with the sequence and the attempt that somebody else announced, and whether it is for us
            to give way when that is our attempt, too.
        mark_doubtful: called after a broken link; returns the deliveries in hand.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        *,
        on_claim: Callable[[int, int, bool], None],
        mark_doubtful: Callable[[], Iterable[Delivery]],
    ) -> None:
        self.malformed = 0
        self._of_consumer = f"nats_jobs.claims.{stream}.{consumer}"
        self._connection = connection
        self._on_claim = on_claim
        self._mark_doubtful = mark_doubtful
        self._name = unique_token().encode()
        # The asker keeps the question for as long as it waits for answers.
        self._questions: WeakValueDictionary[int, Question] = WeakValueDictionary()
        self._subject = ""
        self._sid = 0

    @contextmanager
    def listening(self, token: str) -> Iterator[None]:
        """Hear of the announcements for one consumer inside of the block; `bind` may change which.

        Args:
            token: tells this consumer from others of the same name, in another domain or from another time.
        """
        self.bind(token)
        try:
            yield
        finally:
            self._connection.lowlevel.unsubscribe(self._sid)

    def bind(self, token: str) -> None:
        """Announce and hear of this consumer from now on, and of no other."""
        if self._sid:
            self._connection.lowlevel.unsubscribe(self._sid)

        self._subject = f"{self._of_consumer}.{token}"
        self._sid = self._connection.lowlevel.subscribe_nowait(
            self._subject, self._receive, on_resubscribed=self._announce_all
        )

    def announce(self, delivery: Delivery) -> None:
        """Say that we hold this delivery."""
        self._say(delivery.sequence, delivery.attempt, self._name)

    def none_left(self, sequence: int, deliveries: int) -> None:
        """Say that nobody holds this message, which was delivered so often: as if there were one delivery more.

        It is said to ourselves, too.
        """
        self._say(sequence, deliveries + 1, b"")

    def ask(self, sequence: int) -> Question:
        """Ask the other workers which delivery of a message they hold."""
        question = self._questions[sequence] = Question()
        self._say(sequence, 0, self._name)
        return question

    def is_asked(self, sequence: int) -> bool:
        """Whether somebody waits for answers about this message."""
        return sequence in self._questions

    def _say(self, sequence: int, attempt: int, name: bytes) -> None:
        try:
            self._connection.lowlevel.publish_nowait(
                self._subject, "", b"", b"%d %d %b" % (sequence, attempt, name)
            )
        except NatsJobsError:
            # Without a link there is nobody to tell; with the next one, all are told.
            return

    def _announce_all(self) -> None:
        for delivery in self._mark_doubtful():
            self.announce(delivery)

    def _receive(self, message: Msg) -> None:
        try:
            sequence, attempt, name = parse_claim(message.data)
        except Malformed as error:
            self._on_malformed(error)
            return

        if name != self._name:
            self._note_answer(sequence, attempt)
            self._on_claim(sequence, attempt, name > self._name)

    def _note_answer(self, sequence: int, attempt: int) -> None:
        question = self._questions.get(sequence)
        if question is not None:
            question.attempt = max(question.attempt, attempt)

    def _on_malformed(self, error: Malformed) -> None:
        self.malformed += 1
        if self.malformed == 1:
            # Once: anyone who can publish there could fill the log.
            logger.warning("%s: %s; further ones are only counted", self._subject, error)


def parse_claim(data: bytes) -> tuple[int, int, bytes]:
    """Return sequence, attempt and the name of the claimant, empty for nobody's.

    Raises:
        Malformed: not a claim.
    """
    if len(data) > _MAX_BYTES:
        raise Malformed("claim", f"{len(data):,} bytes long: {shorten(data)}")

    match data.split(b" "):
        case [sequence, attempt, name]:
            return (
                parse_number(sequence, "sequence of a claim"),
                parse_number(attempt, "attempt of a claim"),
                name,
            )
        case _:
            raise Malformed("claim", f"three fields are expected: {shorten(data)}")
