"""Is a starting server usable yet?

The server writes its ports file once JetStream stands and every listener is open, so that file comes first; it also
tells which port the server picked. Then the client port has to answer with an INFO line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteReceiveStream

__all__ = ("read_ports", "wait_usable")

_POLL_INTERVAL = 0.01
_INFO_TIMEOUT = 0.5
_RECEIVE_BYTES = 65536


def read_ports(directory: Path, pid: int) -> tuple[int, bool] | None:
    """Return the client port and whether it speaks TLS; None while the server has not told."""
    for file in directory.glob(f"*_{pid}.ports"):
        try:
            url = urlsplit(json.loads(file.read_text())["nats"][0])
        except (OSError, ValueError, LookupError):
            return None  # being written, or just removed

        return None if url.port is None else (url.port, url.scheme == "tls")

    return None


async def wait_usable(host: str, port: int, *, tls: bool, jetstream: bool) -> None:
    """Wait until the client port answers and, if `jetstream`, offers JetStream. Bounded by the caller."""
    while not await _is_usable(host, port, tls=tls, jetstream=jetstream):  # noqa: ASYNC110 - another process sets no events
        await anyio.sleep(_POLL_INTERVAL)


async def _is_usable(host: str, port: int, *, tls: bool, jetstream: bool) -> bool:
    try:
        async with await anyio.connect_tcp(host, port) as stream:
            with anyio.move_on_after(_INFO_TIMEOUT):
                return _offers(await _receive_line(stream), jetstream=jetstream)

            # With `handshake_first` the client speaks first. The port is open, and that is all one can see from outside.
            return tls
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, ValueError):
        return False


async def _receive_line(stream: ByteReceiveStream) -> bytes:
    received = b""
    while b"\r\n" not in received:
        received += await stream.receive(_RECEIVE_BYTES)

    return received.partition(b"\r\n")[0]


def _offers(line: bytes, *, jetstream: bool) -> bool:
    verb, _, text = line.partition(b" ")
    if verb != b"INFO":
        return False

    answer: dict[str, Any] = json.loads(text)
    return not jetstream or answer.get("jetstream") is True
