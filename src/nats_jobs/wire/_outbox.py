"""What waits to be sent on a link: whole frames, coalesced into few sends, with room for only so many bytes.

A message is queued in the pieces that it was given in, and first copied when all that waits becomes one send.
"""

from __future__ import annotations

from copy import copy

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from ..errors import PayloadTooLarge, ServerRefused, UsageError
from ._commands import END as _END
from ._info import limit_in

__all__ = ("Outbox",)

# One send at most: so that a slow peer is noticed by the clock of one send, not of megabytes.
_SEND = 1024 * 1024
# Queued bytes after which a publisher lets others have a turn, the writer among them.
_TURN = 128 * 1024
# The sizes of most messages. Writing a number takes longer than all else that is done for a small message here.
_MANY = 1024
_SIZES = tuple(b"%d\r\n" % size for size in range(_MANY))
# What a message has in the queue; a command has one.
_ENTRIES = 4


class Outbox:
    """Frames go in at once; `run` sends them.

    Attributes:
        max_payload: most bytes of headers and data that the peer takes.
        refuses_headers: when it takes none.
        sends: how many pieces have been sent.
        sending: whether one is on its way.
        bytes_out: handed to the stream so far.
    """

    def __init__(self, stream: ByteStream, pending_size: int) -> None:
        self.max_payload = limit_in({})
        self.refuses_headers: ServerRefused | None = None
        self.sends = self.bytes_out = self.queued = 0
        self.sending = False
        self._stream = stream
        self._pending_size = pending_size
        self._queue: list[bytes] = []
        self._entries_sent = self._entries_of_commands = 0
        self._next_turn = min(_TURN, pending_size)
        self._work = anyio.Event()
        self._room: anyio.Event | None = None
        self._closed = False

    @property
    def messages_out(self) -> int:
        """How many were queued. Told from the entries, since counting them would take its time for every one."""
        return (self._entries_sent + len(self._queue) - self._entries_of_commands) // _ENTRIES

    def write(self, frame: bytes) -> None:
        """Queue a whole frame."""
        if not self._queue:
            self._work.set()

        self._queue.append(frame)
        self._entries_of_commands += 1
        self.queued += len(frame)

    def publish(self, line: bytes, data: bytes, block: bytes = b"") -> bool:
        """Queue a message; return whether the publisher should `give_way` now. Never blocks.

        Args:
            line: the message's own, up to the sizes.
            block: its encoded headers.

        Raises:
            PayloadTooLarge, ServerRefused, UsageError: nothing was queued.
        """
        if type(data) is not bytes:
            data = _as_bytes(data)

        size = len(data)
        if block:
            size += len(block)
            sizes = b"%d %d\r\n%b" % (len(block), size, block)
            if self.refuses_headers is not None:
                raise copy(self.refuses_headers)

        else:
            sizes = _SIZES[size] if size < _MANY else b"%d\r\n" % size

        if size > self.max_payload:
            raise PayloadTooLarge(_subject_in(line), size, self.max_payload)

        queue = self._queue
        if not queue:
            self._work.set()

        queue += (line, sizes, data, _END)
        self.queued += len(line) + size
        return self.queued > self._next_turn

    def write_first(self, frame: bytes) -> None:
        """Queue a frame before all that wait."""
        self._queue.insert(0, frame)
        self._entries_of_commands += 1
        self._work.set()

    async def give_way(self) -> None:
        """Let others have a turn; wait while more than `pending_size` bytes are queued, unless the link breaks."""
        # Also when closed: who publishes in a loop would never let the others come to taking the link away.
        if self.queued <= self._pending_size or self._closed:
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
        self._entries_sent += len(self._queue)
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


def _as_bytes(data: object) -> bytes:
    """A copy of what its owner may still change; of nothing but bytes."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)

    raise UsageError(f"data is {data!r:.80}; bytes are needed")


def _subject_in(line: bytes) -> str:
    return line.split()[1].decode("utf-8", "surrogateescape")
