"""One greeted byte stream, from its first frame to its break: a reader, a writer, a keepalive.

Frames that were queued on a link die with it: nothing is replayed on the next one, so no frame can
arrive twice or in halves. Who needs to know whether something arrived asks for a reply.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from ..errors import ProtocolError
from . import _commands
from ._handshake import Greeted
from ._options import Options
from ._parser import Frame
from ._pulse import Pulse

__all__ = ("Link",)

_RECEIVE = 65536
# One send at most: so that a slow peer is noticed by the clock of one send, not of megabytes.
_SEND = 1024 * 1024


class Link:
    """Carries frames both ways until the link breaks. `run` owns its tasks."""

    def __init__(
        self, greeted: Greeted, options: Options, pulse: Pulse, handle: Callable[[Frame], None]
    ) -> None:
        self.server = greeted.server
        self.bytes_in = self.bytes_out = 0
        self._stream = greeted.stream
        self._parser = greeted.parser
        self._early = greeted.early
        self._options = options
        self._pulse = pulse
        self._handle = handle
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._work = anyio.Event()
        self._room: anyio.Event | None = None
        self._sending_since: float | None = None
        self._heard = True
        self._pings_out = 0
        self._why: str | None = None
        self._group: TaskGroup | None = None

    def write(self, frame: bytes) -> None:
        """Queue a whole frame. Never blocks; `wait_room` is the back-pressure."""
        if not self._queue:
            self._work.set()

        self._queue.append(frame)
        self._queued_bytes += len(frame)

    @property
    def crowded(self) -> bool:
        """Whether so much is queued that a publisher should wait."""
        return self._queued_bytes > self._options.pending_size

    async def wait_room(self) -> None:
        """Wait until the link is not crowded, or broken."""
        while self.crowded and self._why is None:
            if self._room is None:
                self._room = anyio.Event()

            await self._room.wait()

    def pong_received(self) -> None:
        self._pings_out = 0

    def break_off(self, why: str) -> None:
        """End `run` soon. Only the first reason counts."""
        if self._why is None:
            self._why = why
            if self._group is not None:
                self._group.cancel_scope.cancel(why)

    async def run(self) -> str:
        """Carry frames until the link breaks, and return why it did. The stream is closed then."""
        try:
            async with anyio.create_task_group() as self._group:
                if self._why is not None:
                    self._group.cancel_scope.cancel(self._why)

                self._group.start_soon(self._read)
                self._group.start_soon(self._write)
                self._group.start_soon(self._keep_alive)
        finally:
            self._why = self._why or "closed"
            self._wake_waiting_for_room()
            await anyio.aclose_forcefully(self._stream)

        return self._why

    async def _read(self) -> None:
        try:
            for frame in self._early:
                self._handle(frame)

            await self._read_chunks()
        except anyio.EndOfStream:
            self.break_off("closed by the server")
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError) as error:
            self.break_off(_cause(error))
        except ProtocolError as error:
            self.break_off(f"protocol error: {error}")

    async def _read_chunks(self) -> None:
        receive, feed, handle, pulse = self._stream.receive, self._parser.feed, self._handle, self._pulse
        while True:
            pulse.reading = True
            chunk = await receive(_RECEIVE)
            pulse.reading = False
            self._heard = True
            self.bytes_in += len(chunk)
            for frame in feed(chunk):
                handle(frame)

            if len(chunk) < _RECEIVE:
                pulse.drained = True

    async def _write(self) -> None:
        try:
            while True:
                while not self._queue:
                    self._work = anyio.Event()
                    await self._work.wait()

                await self._send_queued()
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError) as error:
            self.break_off(_cause(error))

    async def _send_queued(self) -> None:
        """Send what is queued as one piece, in slices."""
        data = b"".join(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        for start in range(0, len(data), _SEND):
            self._sending_since = anyio.current_time()
            await self._stream.send(data[start : start + _SEND] if len(data) > _SEND else data)

        self._sending_since = None
        self.bytes_out += len(data)
        self._wake_waiting_for_room()

    async def _keep_alive(self) -> None:
        """Ping a silent peer; break off when it stays silent, or when a send is stuck (NATS.md 1.5)."""
        interval = self._options.ping_interval
        limit = interval * self._options.max_outstanding_pings
        while True:
            await anyio.sleep(interval)
            if self._sending_since is not None and anyio.current_time() - self._sending_since > limit:
                self.break_off(f"a send has been stuck for {limit:g} s")
            elif self._heard:
                self._heard, self._pings_out = False, 0
            elif self._pings_out >= self._options.max_outstanding_pings:
                self.break_off(f"stale: no answer to {self._pings_out} pings")
            else:
                self._pings_out += 1
                self.write(_commands.PING)

    def _wake_waiting_for_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None


def _cause(error: BaseException) -> str:
    """Say it with the operating system's words where AnyIO wrapped them."""
    inner = error.__cause__ or error
    return str(inner) or type(inner).__name__
