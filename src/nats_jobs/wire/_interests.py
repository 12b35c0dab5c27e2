"""What we listen to: the table of subscriptions, which outlives every link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._link import Link
from ._messages import Msg

__all__ = ("INBOX_SID", "Interest", "Interests", "ignore", "nothing")

INBOX_SID = 1


def ignore(error: Exception) -> None:
    pass


def nothing() -> None:
    pass


@dataclass(slots=True, eq=False)
class Interest:
    """One subscription.

    `asks` is the subject of the requests that its messages come in answer to, where there is one. `leaving`
    means that the server was told to end it, and late messages are still welcome.
    """

    subject: str
    queue: str
    sink: Callable[[Msg], None]
    fail: Callable[[Exception], None] = ignore
    renewed: Callable[[], None] = nothing
    asks: str = ""
    leaving: bool = False


class Interests:
    """Subscriptions by their number.

    Numbers are never used twice, so a late message for an old one cannot be taken for a new one's. The
    inbox of the requests has the first, and stays for good.
    """

    def __init__(self, inbox: Interest) -> None:
        self.messages_in = 0
        self._table = {INBOX_SID: inbox}
        self._last_sid = INBOX_SID

    def __len__(self) -> int:
        return len(self._table)

    def add(self, interest: Interest, link: Link | None) -> int:
        """Enter it, and subscribe when there is a link; return its number."""
        self._last_sid += 1
        self._table[self._last_sid] = interest
        if link is not None:
            link.subscribe(interest.subject, interest.queue, self._last_sid)

        return self._last_sid

    def drop(self, sid: int, link: Link | None, *, keep: bool) -> None:
        """Unsubscribe. With `keep`, what is under way is still delivered until it is dropped again without."""
        interest = self._table.get(sid)
        if interest is None:
            return

        if link is not None and not interest.leaving:
            link.unsubscribe(sid)

        interest.leaving = True
        if not keep:
            del self._table[sid]

    def deliver(self, message: Msg) -> None:
        self.messages_in += 1
        interest = self._table.get(message.sid)
        if interest is not None:
            interest.sink(message)

    def move_in(self, link: Link) -> None:
        """Subscribe to everything on a new link, before anybody else can send on it."""
        for sid, interest in self._table.items():
            if not interest.leaving:
                link.subscribe(interest.subject, interest.queue, sid)

    def announce(self) -> None:
        """Tell each that it was made again. To be called when the new link may be used."""
        for interest in list(self._table.values()):
            interest.renewed()

    def move_out(self, link: Link) -> None:
        """End everything on a link that is about to be left, but for the replies."""
        for sid, interest in self._table.items():
            if sid != INBOX_SID and not interest.leaving:
                link.unsubscribe(sid)

    def refuse(self, sid: int, error: Exception) -> None:
        """The server does not take this one. It would not take it from a later link either, so it is forgotten."""
        interest = self._table.get(sid)
        if interest is None:
            return

        if sid != INBOX_SID:
            del self._table[sid]

        interest.fail(error)

    def matching(self, subject: str, queue: str) -> list[int]:
        """Return the numbers of the subscriptions to exactly that."""
        return [
            sid
            for sid, interest in self._table.items()
            if interest.subject == subject and interest.queue == queue
        ]

    def asking(self, subject: str) -> list[int]:
        """Return the numbers of the subscriptions whose messages are asked for there."""
        return [sid for sid, interest in self._table.items() if interest.asks and interest.asks == subject]

    def fail_all(self, error: Exception) -> None:
        """No message can come any more, for nobody."""
        for interest in list(self._table.values()):
            interest.fail(error)
