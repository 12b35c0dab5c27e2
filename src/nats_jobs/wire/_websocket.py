"""WebSocket as a byte stream: NATS inside binary frames, for servers that are reached through HTTP.

The protocol is wsproto's (it does no I/O); this file moves its bytes. Needs the `websocket` extra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError as WebSocketError

from ..errors import ProtocolError
from ._options import Options
from ._urls import Server

__all__ = ("WebSocketStream", "open_websocket")

_RECEIVE = 65536


async def open_websocket(stream: ByteStream, server: Server, options: Options) -> ByteStream:
    """Turn `stream` into a WebSocket. A failure or cancellation leaves `stream` to the caller to close.

    Raises:
        ConnectionError: the peer is no WebSocket server, or does not let us in.
    """
    protocol = WSConnection(ConnectionType.CLIENT)
    headers = [
        (name.encode("ascii"), value.encode("latin-1"))
        for name, values in (options.ws_connection_headers or {}).items()
        for value in values
    ]
    try:
        await stream.send(protocol.send(Request(server.authority, server.path, extra_headers=headers)))
        await _await_acceptance(stream, protocol)
    except WebSocketError as error:
        raise ConnectionError(
            f"no WebSocket handshake: {error}; is it the server's websocket port?"
        ) from error

    return WebSocketStream(stream, protocol)


async def _await_acceptance(stream: ByteStream, protocol: WSConnection) -> None:
    while True:
        protocol.receive_data(await stream.receive(_RECEIVE))
        for event in protocol.events():
            match event:
                case AcceptConnection():
                    # Frames that came with it wait in `protocol`.
                    return
                case RejectConnection(status_code=status):
                    raise ConnectionError(
                        f"the WebSocket handshake was answered with HTTP status {status}; "
                        "are path and headers right, and is it the server's websocket port?"
                    )
                case _:
                    pass


class WebSocketStream(ByteStream):
    """The payloads of binary frames as one stream of bytes. One task may receive while another sends."""

    def __init__(self, stream: ByteStream, protocol: WSConnection) -> None:
        self._stream = stream
        self._protocol = protocol
        self._sending = anyio.Lock()
        self._received = bytearray()
        self._answer = b""
        self._ended = False
        self._take_events()

    async def receive(self, max_bytes: int = _RECEIVE) -> bytes:
        await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._received:
            if self._ended:
                raise anyio.EndOfStream

            self._protocol.receive_data(await self._stream.receive(_RECEIVE))
            self._take_events()
            await self._answer_unless_sending()

        chunk = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        return chunk

    async def send(self, item: bytes) -> None:
        async with self._sending:
            try:
                frame = self._protocol.send(BytesMessage(data=item))
            except WebSocketError as error:
                # The peer has closed; what it sent before may still be read.
                raise anyio.BrokenResourceError from error

            await self._stream.send(frame)
            await self._send_answer()

    async def send_eof(self) -> None:
        raise NotImplementedError("a WebSocket cannot be closed in one direction only")

    async def aclose(self) -> None:
        """Close without a farewell frame: a NATS server takes the end of the TCP connection for one."""
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes

    def _take_events(self) -> None:
        for event in self._protocol.events():
            match event:
                case BytesMessage(data=data):
                    self._received += data
                case Ping():
                    # Of several only the last has to be answered, so this does not grow.
                    self._answer = self._protocol.send(event.response())
                case CloseConnection():
                    self._ended = True
                    self._answer = self._protocol.send(event.response())
                    return
                case TextMessage():
                    raise ProtocolError("the server sent text over WebSocket; NATS comes in binary frames")
                case _:
                    pass

    async def _answer_unless_sending(self) -> None:
        """Send the answer to a ping now, or leave it to the task that sends: the reader must not wait for that one."""
        try:
            self._sending.acquire_nowait()
        except anyio.WouldBlock:
            return

        try:
            await self._send_answer()
        finally:
            self._sending.release()

    async def _send_answer(self) -> None:
        while self._answer:
            answer, self._answer = self._answer, b""
            await self._stream.send(answer)
