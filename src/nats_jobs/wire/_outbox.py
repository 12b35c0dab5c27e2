"""What waits to be sent on a link: whole frames, coalesced into few sends, with room for only so many bytes."""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

__all__ = ("Outbox",)

# One send at most: so that a slow peer is noticed by the clock of one send, not of megabytes.
_SEND = 1024 * 1024
# Queued bytes after which a publisher lets others have a turn, the writer among them.
_TURN = 64 * 1024


class Outbox:
    """Frames go in at once; `run` sends them.

    Attributes:
        sends: how many pieces have been sent.
        sending: whether one is on its way.
        bytes_out: handed to the stream so far.
    """

    def __init__(self, stream: ByteStream, pending_size: int) -> None:
        self.sends = self.bytes_out = self.queued = 0
        self.sending = False
        self._stream = stream
        self._pending_size = pending_size
        self._queue: list[bytes] = []
        self._next_turn = min(_TURN, pending_size)
        self._work = anyio.Event()
        self._room: anyio.Event | None = None
        self._closed = False

    def write(self, frame: bytes) -> bool:
        """Queue a whole frame; return whether the writer should `give_way` now. Never blocks."""
        if not self._queue:
            self._work.set()

        self._queue.append(frame)
        self.queued += len(frame)
        return self.queued > self._next_turn

    def write_first(self, frame: bytes) -> None:
        """Queue a frame before all that wait."""
        self._queue.insert(0, frame)
        self._work.set()

    async def give_way(self) -> None:
        """Let others have a turn; wait while more than `pending_size` bytes are queued, unless the link breaks."""
        if self.queued <= self._pending_size:
            self._next_turn = min(self.queued + _TURN, self._pending_size)
            await checkpoint()

        while self.queued > self._pending_size and not self._closed:
            if self._room is None:
                self._room = anyio.Event()

            await self._room.wait()

    def close(self) -> None:
        """Nothing more will be sent: nobody has to wait for room."""
        self._closed = True
        self._wake_waiting_for_room()

    async def run(self) -> None:
        """Send what is queued, until cancelled. Raises what the stream does."""
        while True:
            while not self._queue:
                self._work = anyio.Event()
                await self._work.wait()

            await self._send_queued()

    async def _send_queued(self) -> None:
        """Send what is queued as one piece, in slices."""
        data = b"".join(self._queue)
        self._queue.clear()
        self.queued = 0
        self._next_turn = min(_TURN, self._pending_size)
        self.sending = True
        for start in range(0, len(data), _SEND):
            await self._stream.send(data[start : start + _SEND] if len(data) > _SEND else data)
            self.sends += 1

        self.sending = False
        self.bytes_out += len(data)
        self._wake_waiting_for_room()

    def _wake_waiting_for_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None
