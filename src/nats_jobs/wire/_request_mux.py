"""Requests that wait for their reply: one inbox for all, a token for each."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TypeAlias

import anyio

from ..errors import ConnectionLost, NoResponders, PermissionDenied
from ._messages import Msg
from ._subjects import unique_token

__all__ = ("OnReply", "Reply", "ReplyWaiter", "RequestMux", "unwrap_reply")

Reply: TypeAlias = Msg | ConnectionLost | PermissionDenied
"""What a request ends with: an answer, or that there can be none."""

OnReply: TypeAlias = Callable[[Reply], None]


class RequestMux:
    """Outstanding requests. Every entry is called exactly once, or cancelled."""

    def __init__(self, inbox_prefix: str) -> None:
        self._prefix = f"{inbox_prefix}.{unique_token()}."
        self._skip = len(self._prefix)
        self._waiting: dict[str, tuple[str, OnReply]] = {}
        self._count = 0
        self._denied: PermissionDenied | None = None
        self._all_answered: anyio.Event | None = None

    @property
    def subject(self) -> str:
        """What to subscribe to for all replies."""
        return self._prefix + "*"

    def __len__(self) -> int:
        return len(self._waiting)

    def register(self, subject: str, on_reply: OnReply) -> str:
        """Enter a request to `subject`; return its reply subject.

        Raises:
            PermissionDenied: the server does not let us listen for replies. Nothing was entered.
        """
        if self._denied is not None:
            raise copy(self._denied)

        self._count += 1
        token = f"{self._count:x}"
        self._waiting[token] = (subject, on_reply)
        return self._prefix + token

    def cancel(self, reply_subject: str) -> None:
        """Forget a request; its reply will be ignored."""
        self._waiting.pop(reply_subject[self._skip :], None)
        self._notify_if_empty()

    def deliver(self, message: Msg) -> None:
        entry = self._waiting.pop(message.subject[self._skip :], None)
        if entry is not None:
            entry[1](message)
            if self._all_answered is not None:
                self._notify_if_empty()

    def fail_all(self, error: ConnectionLost | PermissionDenied) -> None:
        """No reply can come: the link broke, and the inbox with it."""
        waiting, self._waiting = self._waiting, {}
        for _, on_reply in waiting.values():
            on_reply(error)

        self._notify_if_empty()

    def fail(self, subject: str, error: PermissionDenied) -> None:
        """The server did not let a publish to `subject` pass."""
        refused = [token for token, (asked, _) in self._waiting.items() if asked == subject]
        for token in refused:
            self._waiting.pop(token)[1](error)

        self._notify_if_empty()

    def fail_reply(self, reply_subject: str, error: PermissionDenied) -> None:
        """The server did not let a publish with that reply subject pass."""
        if reply_subject.startswith(self._prefix):
            entry = self._waiting.pop(reply_subject[self._skip :], None)
            if entry is not None:
                entry[1](error)
                self._notify_if_empty()

    def deny_inbox(self, error: Exception) -> None:
        """The server refuses the inbox: no request can be answered on this link."""
        reason = getattr(error, "reason", str(error))
        self._denied = PermissionDenied(self.subject, reason)
        self.fail_all(self._denied)

    def reset(self) -> None:
        """A new link: its server may allow what another one did not."""
        self._denied = None

    async def wait_all_answered(self) -> None:
        """Wait until no request is outstanding."""
        while self._waiting:
            self._all_answered = self._all_answered or anyio.Event()
            await self._all_answered.wait()

    def _notify_if_empty(self) -> None:
        if self._all_answered is not None and not self._waiting:
            self._all_answered.set()
            self._all_answered = None


class ReplyWaiter:
    """Turns `on_reply` into something to wait for."""

    __slots__ = ("answered", "reply")

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.reply: Reply | None = None

    def answer(self, reply: Reply) -> None:
        self.reply = reply
        self.answered.set()


def unwrap_reply(reply: Reply, subject: str) -> Msg:
    """Return the message, or raise what it stands for."""
    if not isinstance(reply, Msg):
        # A copy: one error may have been the answer to many.
        raise copy(reply)

    if not reply.data and reply.status == 503:
        raise NoResponders(subject)

    return reply
