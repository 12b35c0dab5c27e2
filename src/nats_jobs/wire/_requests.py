"""Requests that wait for their reply: one inbox for all, a token for each (NATS.md 9.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..errors import ConnectionLost, PermissionDenied
from ._messages import Msg
from ._subjects import unique_token

__all__ = ("OnReply", "Reply", "Requests")

Reply: TypeAlias = Msg | ConnectionLost | PermissionDenied
"""What a request ends with: an answer, or that there can be none."""

OnReply: TypeAlias = Callable[[Reply], None]


class Requests:
    """The books of outstanding requests. Every entry is called exactly once, or forgotten."""

    def __init__(self, inbox_prefix: str) -> None:
        self._prefix = f"{inbox_prefix}.{unique_token()}."
        self._skip = len(self._prefix)
        self._waiting: dict[str, tuple[str, OnReply]] = {}
        self._count = 0

    @property
    def subject(self) -> str:
        """What to subscribe to for all replies."""
        return self._prefix + "*"

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, subject: str, on_reply: OnReply) -> str:
        """Enter a request to `subject`; return its reply subject."""
        self._count += 1
        token = f"{self._count:x}"
        self._waiting[token] = (subject, on_reply)
        return self._prefix + token

    def forget(self, reply_subject: str) -> None:
        """Take a request out of the books; its reply will be ignored."""
        self._waiting.pop(reply_subject[self._skip :], None)

    def deliver(self, message: Msg) -> None:
        entry = self._waiting.pop(message.subject[self._skip :], None)
        if entry is not None:
            entry[1](message)

    def fail_all(self, error: ConnectionLost) -> None:
        """The link broke: no reply can come, the inbox is gone."""
        waiting, self._waiting = self._waiting, {}
        for _, on_reply in waiting.values():
            on_reply(error)

    def refuse(self, subject: str, error: PermissionDenied) -> None:
        """The server did not let a publish to `subject` pass."""
        refused = [token for token, (asked, _) in self._waiting.items() if asked == subject]
        for token in refused:
            self._waiting.pop(token)[1](error)
