"""What is subscribed to: a table that outlives every link. It decides; the session sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._messages import Msg

__all__ = ("INBOX_SID", "Entry", "SubscriptionTable", "ignore", "nothing")

INBOX_SID = 1


def ignore(error: Exception) -> None:
    pass


def nothing() -> None:
    pass


@dataclass(slots=True, eq=False)
class Entry:
    """One subscription.

    Attributes:
        request_subject: where its messages are asked for, if they are answers to requests.
        on_drained: ends the stream of messages that a user reads; None for the library's own.
        leaving: the server was told to end it, and late messages are still welcome.
    """

    subject: str
    queue: str
    on_message: Callable[[Msg], None]
    on_error: Callable[[Exception], None] = ignore
    on_resubscribed: Callable[[], None] = nothing
    request_subject: str = ""
    on_drained: Callable[[], None] | None = None
    leaving: bool = False


class SubscriptionTable:
    """Subscriptions by their number.

    Numbers are never used twice, so a late message for an old one cannot be taken for a new one's. The
    inbox of the requests has the first, and stays for good.
    """

    def __init__(self, inbox: Entry) -> None:
        self.messages_in = 0
        self._entries = {INBOX_SID: inbox}
        self._last_sid = INBOX_SID

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> int:
        """Enter it; return its number."""
        self._last_sid += 1
        self._entries[self._last_sid] = entry
        return self._last_sid

    def remove(self, sid: int, *, drain: bool) -> bool:
        """Return whether the server has to be told. With `drain`, late messages are delivered until the next call without."""
        entry = self._entries.get(sid)
        if entry is None:
            return False

        tell, entry.leaving = not entry.leaving, True
        if not drain:
            del self._entries[sid]

        return tell

    def deliver(self, message: Msg) -> None:
        self.messages_in += 1
        entry = self._entries.get(message.sid)
        if entry is not None:
            entry.on_message(message)

    def standing(self) -> list[tuple[int, Entry]]:
        """Return what every new link must subscribe to."""
        return [(sid, entry) for sid, entry in self._entries.items() if not entry.leaving]

    def streams(self) -> list[tuple[int, Callable[[], None]]]:
        """Return the numbers of what users read, and how each is ended."""
        return [
            (sid, entry.on_drained)
            for sid, entry in self._entries.items()
            if entry.on_drained and not entry.leaving
        ]

    def notify_resubscribed(self) -> None:
        """Tell each that it was made again. To be called when the new link may be used."""
        for entry in list(self._entries.values()):
            entry.on_resubscribed()

    def fail(self, sid: int, error: Exception) -> None:
        """The server does not accept this one. It would not accept it from a later link either, so it is forgotten."""
        entry = self._entries.get(sid)
        if entry is None:
            return

        if sid != INBOX_SID:
            del self._entries[sid]

        entry.on_error(error)

    def matching(self, subject: str, queue: str) -> list[int]:
        """Return the numbers of the subscriptions to exactly that."""
        return [
            sid for sid, entry in self._entries.items() if entry.subject == subject and entry.queue == queue
        ]

    def by_request_subject(self, subject: str) -> list[int]:
        """Return the numbers of the subscriptions whose messages are asked for there."""
        return [
            sid
            for sid, entry in self._entries.items()
            if entry.request_subject and entry.request_subject == subject
        ]

    def fail_all(self, error: Exception) -> None:
        """No message can come any more, for any of them."""
        for entry in list(self._entries.values()):
            entry.on_error(error)
