"""Publishes from outside, on a plain socket: the same for every system, and without a word of theirs.

    python -m benchmarks.sender HOST:PORT COUNT SIZE GAP STREAM [STREAM …]

With a gap it sends one message after the other, each after a random pause of half to one and a half times
the gap in seconds, and each carries the moment at which it was sent. Without one it sends all at once,
numbered, to the streams in turn. Nothing is confirmed; that all arrived is seen by who performs them.
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.ledger import payload

__all__ = ("send_from_outside", "sent_at")

_STAMP_DIGITS = 24
_AT_ONCE = 1000


def send_from_outside(
    url: str, streams: tuple[str, ...], count: int, size: int, gap: float
) -> subprocess.Popen[bytes]:
    """Start a sender; whoever starts it waits for it."""
    address = url.removeprefix("nats://")
    command = [sys.executable, "-m", "benchmarks.sender", address, str(count), str(size), str(gap), *streams]
    return subprocess.Popen(command, cwd=Path(__file__).resolve().parent.parent)


def sent_at(payload: bytes) -> float:
    """Return the moment, on the machine's monotonic clock, at which a message with a stamp was sent."""
    return float(payload[:_STAMP_DIGITS])


def main(address: str, count: int, size: int, gap: float, streams: list[str]) -> None:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _greet(link)
        if gap:
            _one_by_one(link, count, size, gap, streams[0])
        else:
            _all_at_once(link, count, size, streams)

        _flush(link)


def _greet(link: socket.socket) -> None:
    link.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
    _flush(link)


def _flush(link: socket.socket) -> None:
    link.sendall(b"PING\r\n")
    received = b""
    while b"PONG\r\n" not in received:
        chunk = link.recv(65536)
        if not chunk:
            raise ConnectionError("the server closed the connection")

        received += chunk


def _one_by_one(link: socket.socket, count: int, size: int, gap: float, stream: str) -> None:
    pauses = random.Random(count)
    head = b"PUB %b %d\r\n" % (stream.encode(), size)
    for _ in range(count):
        time.sleep(pauses.uniform(0.5, 1.5) * gap)
        stamp = b"%*.9f" % (_STAMP_DIGITS, time.monotonic())
        link.sendall(head + stamp.ljust(size, b"x") + b"\r\n")


def _all_at_once(link: socket.socket, count: int, size: int, streams: list[str]) -> None:
    for first in range(0, count, _AT_ONCE):
        link.sendall(
            b"".join(
                b"PUB %b %d\r\n%b\r\n" % (streams[index % len(streams)].encode(), size, payload(index, size))
                for index in range(first, min(count, first + _AT_ONCE))
            )
        )


if __name__ == "__main__":
    _, address, count, size, gap, *streams = sys.argv
    main(address, int(count), int(size), float(gap), streams)
