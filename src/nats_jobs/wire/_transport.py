"""Opens the byte stream to a server: TCP, and TLS on it. The only file that touches a socket."""

from __future__ import annotations

import socket
import ssl

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from ._options import Options
from ._servers import Server

__all__ = ("open_tcp", "start_tls")


async def open_tcp(server: Server) -> ByteStream:
    """Connect. Raises OSError when that fails; cancelling it leaves no socket behind."""
    stream = await anyio.connect_tcp(server.host, server.port)
    # Small frames must not wait for the peer's delayed ack: each of them is someone's round trip.
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


async def start_tls(stream: ByteStream, server: Server, options: Options) -> ByteStream:
    """Wrap `stream` in TLS. Raises ssl.SSLError when the certificate or the protocol does not fit."""
    return await TLSStream.wrap(
        stream,
        server_side=False,
        hostname=options.tls_hostname or server.tls_name or server.host,
        ssl_context=options.tls or ssl.create_default_context(),
        # A NATS server closes without the TLS farewell.
        standard_compatible=False,
    )
