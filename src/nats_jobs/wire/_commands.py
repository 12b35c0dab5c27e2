"""What we say to a server, as bytes. Pure functions; the arguments are checked before they come here.

Lines are joined and not formatted: a member of an enumeration may be a str whose format() is its name.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ("END", "PING", "PONG", "connect", "message_line", "subscribe", "unsubscribe")

END = b"\r\n"
PING = b"PING\r\n"
PONG = b"PONG\r\n"


def connect(fields: dict[str, Any]) -> bytes:
    return b"CONNECT " + json.dumps(fields, separators=(",", ":")).encode() + b"\r\n"


def message_line(subject: str, reply: str = "", *, headers: bool = False) -> bytes:
    """Write the line of a message, up to its sizes."""
    operation = "HPUB" if headers else "PUB"
    words = (operation, subject, reply, "") if reply else (operation, subject, "")
    return " ".join(words).encode("utf-8", "surrogateescape")


def subscribe(subject: str, queue: str, sid: int) -> bytes:
    return " ".join(("SUB", subject, queue, f"{sid}\r\n")).encode("utf-8", "surrogateescape")


def unsubscribe(sid: int) -> bytes:
    return b"UNSUB %d\r\n" % sid
