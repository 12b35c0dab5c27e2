"""What we say to a server, as bytes. Pure functions; the arguments are checked before they come here."""

from __future__ import annotations

import json
from typing import Any

__all__ = ("PING", "PONG", "connect", "publish", "subscribe", "unsubscribe")

PING = b"PING\r\n"
PONG = b"PONG\r\n"


def connect(fields: dict[str, Any]) -> bytes:
    return b"CONNECT " + json.dumps(fields, separators=(",", ":")).encode() + b"\r\n"


def publish(subject: bytes, reply: bytes, header_block: bytes, data: bytes) -> bytes:
    """Write PUB, or HPUB when there is a header block."""
    if header_block:
        size = len(header_block)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(data), header_block, data)

    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(data), data)


def subscribe(subject: str, queue: str, sid: int) -> bytes:
    return f"SUB {subject} {queue} {sid}\r\n".encode("utf-8", "surrogateescape")


def unsubscribe(sid: int) -> bytes:
    return b"UNSUB %d\r\n" % sid
