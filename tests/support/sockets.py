"""What no stream has a method for."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from anyio.abc import SocketAttribute, SocketStream

_NO_LINGER = struct.pack("ii", 1, 0)


def reset_when_closed(stream: SocketStream) -> None:
    """Let the closing of `stream`, which follows, be a reset: what a peer that crashed looks like."""
    # It may be closed already. Then a socket says so with an OSError, and uvloop with either of the others.
    with suppress(OSError, AttributeError, ValueError):
        raw = stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
