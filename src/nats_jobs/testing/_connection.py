"""What stands in for a connection: everything that is sent is confirmed at once, and remembered."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ..wire import Msg, OnReply

__all__ = ("ConfirmingConnection", "Sent")

_PROGRESS = "nats_jobs.progress."


class Sent(NamedTuple):
    subject: str
    data: bytes


class ConfirmingConnection:
    """The part of a `Connection` that jobs use. It is its own `lowlevel` face."""

    def __init__(self) -> None:
        self.settled: list[bytes] = []
        self.published: list[Sent] = []

    @property
    def lowlevel(self) -> ConfirmingConnection:
        return self

    def request_nowait(self, subject: str, data: bytes, on_reply: OnReply, headers: bytes = b"") -> str:
        self.settled.append(data)
        on_reply(Msg(subject, 0, "", b"", b""))
        return ""

    def cancel_request(self, token: str) -> None:
        """It was answered already."""

    async def request(self, subject: str, data: bytes = b"", **_: Any) -> Msg:
        self.published.append(Sent(subject, data))
        return Msg(subject, 0, "", b"", b'{"stream":"DEAD_LETTERS","seq":1}')

    async def publish(self, subject: str, data: bytes = b"", **_: Any) -> None:
        self.published.append(Sent(subject, data))

    @property
    def reported(self) -> tuple[tuple[float, float | None], ...]:
        """What was published with `job.progress`."""
        facts = [json.loads(data) for subject, data in self.published if subject.startswith(_PROGRESS)]
        return tuple((fact["done"], fact["total"]) for fact in facts)
