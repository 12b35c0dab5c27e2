"""`sent_not_before` must never be later than the sending of what is read, whatever held the event loop up.

The server is a thread with a socket, which goes on while the event loop is blocked on purpose. Every
assertion compares two moments that did happen; none asks how long something took.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio import to_thread

from nats_jobs.wire import Connection, connect
from nats_jobs.wire._pulse import Pulse

pytestmark = pytest.mark.anyio

LIMIT = 20.0
PERIOD = 0.02
# An event loop's clock may be rounded to milliseconds.
ROUNDING = 0.002


class Server(threading.Thread):
    """Greets one client, answers its PINGs, and sends it messages."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sending = threading.Lock()
        self._client: socket.socket | None = None
        self.url = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent_at: list[float] = []

    def run(self) -> None:
        with self._listener:
            self._client, _ = self._listener.accept()

        with self._client:
            self._client.sendall(b'INFO {"headers":true,"max_payload":1048576,"proto":1}\r\n')
            try:
                self._answer_pings(self._client)
            except OSError:
                # The client has hung up.
                return

    def _answer_pings(self, client: socket.socket) -> None:
        rest = b""
        while chunk := client.recv(65536):
            *lines, rest = (rest + chunk).split(b"\r\n")
            for line in lines:
                if line == b"PING":
                    with self._sending:
                        client.sendall(b"PONG\r\n")

    def send(self, sid: int, payload: bytes = b"") -> None:
        """Send one message, and note a time at which it was on its way."""
        assert self._client is not None
        with self._sending:
            self.sent_at.append(time.monotonic())
            self._client.sendall(b"MSG s %d %d\r\n%b\r\n" % (sid, len(payload), payload))

    def send_many(self, sid: int, count: int, payload: bytes) -> None:
        for _ in range(count):
            self.send(sid, payload)


class Reader:
    """A client that notes, for each message it reads, the moment after which that must have been sent."""

    def __init__(self, connection: Connection, server: Server) -> None:
        self.server = server
        self.bounds: list[float] = []
        self._connection = connection
        self._offset = anyio.current_time() - time.monotonic()
        self.sid = connection.lowlevel.subscribe_nowait("s", lambda message: self.bounds.append(self.bound))
        connection.lowlevel.set_receive_precision(PERIOD)

    @property
    def bound(self) -> float:
        return self._connection.lowlevel.sent_not_before - self._offset

    async def until_read(self, count: int) -> None:
        with anyio.fail_after(LIMIT):
            while len(self.bounds) < count:
                await anyio.sleep(0.001)

    async def until_bound_moves(self, times: int = 1) -> None:
        with anyio.fail_after(LIMIT):
            for _ in range(times):
                before = self.bound
                while self.bound == before:
                    await anyio.sleep(0.001)

    def check(self) -> None:
        """Hold each bound against the truth."""
        assert self.bounds
        for bound, sent_at in zip(self.bounds, self.server.sent_at, strict=False):
            assert bound <= sent_at + ROUNDING


@asynccontextmanager
async def reader() -> AsyncIterator[Reader]:
    server = Server()
    server.start()
    async with connect(server.url, drain_timeout=1.0) as connection:
        built = Reader(connection, server)
        yield built
        built.check()


def block(seconds: float) -> None:
    time.sleep(seconds)


async def test_it_moves_on_while_nothing_arrives() -> None:
    async with reader() as one:
        before = time.monotonic()
        with anyio.fail_after(LIMIT):
            while one.bound <= before + 5 * PERIOD:
                await anyio.sleep(0.001)

        one.server.send(one.sid)
        await one.until_read(1)


async def test_it_moves_on_under_a_steady_stream_of_messages() -> None:
    async with reader() as one:
        before = time.monotonic()
        with anyio.fail_after(LIMIT):
            while one.bound <= before + 5 * PERIOD:
                one.server.send(one.sid)
                await anyio.lowlevel.checkpoint()

        await one.until_read(1)


async def test_what_comes_while_the_loop_is_blocked_counts_from_before_the_block() -> None:
    async with reader() as one:
        for number in range(1, 6):
            await one.until_bound_moves()
            one.server.send(one.sid)
            block(5 * PERIOD)
            await one.until_read(number)


@pytest.mark.parametrize("blocks", [2, 5])
async def test_it_stays_honest_when_the_loop_is_blocked_again_at_every_turn(blocks: int) -> None:
    async with reader() as one:
        for number in range(1, 5):
            await one.until_bound_moves()
            block(2 * PERIOD)
            one.server.send(one.sid)
            for _ in range(blocks):
                block(2 * PERIOD)
                await anyio.lowlevel.checkpoint()

            await one.until_read(number)


async def test_a_backlog_that_takes_long_to_read_counts_from_its_sending() -> None:
    async with reader() as one:
        await one.until_bound_moves(2)
        async with anyio.create_task_group() as group:
            group.start_soon(to_thread.run_sync, one.server.send_many, one.sid, 100, bytes(16000))
            with anyio.fail_after(LIMIT):
                while len(one.bounds) < 100:
                    # Each turn of the loop takes longer than the period.
                    block(1.5 * PERIOD)
                    await anyio.lowlevel.checkpoint()


async def test_a_message_that_arrives_in_pieces_counts_from_before_the_first() -> None:
    async with reader() as one:
        await one.until_bound_moves()
        half = b"x" * 4000
        server = one.server
        assert server._client is not None
        with server._sending:
            server.sent_at.append(time.monotonic())
            server._client.sendall(b"MSG s %d 8000\r\n" % one.sid + half)
            # The server can say nothing else meanwhile, however long it takes.
            await anyio.sleep(5 * PERIOD)
            server._client.sendall(half + b"\r\n")

        await one.until_read(1)


async def test_a_new_link_begins_anew() -> None:
    pulse = Pulse(lambda seconds: None)
    before = anyio.current_time()
    await anyio.sleep(0.01)
    pulse.restart()
    assert pulse.sent_not_before > before
    pulse.answered(before)
    assert pulse.sent_not_before > before


async def test_it_is_told_when_the_loop_was_held() -> None:
    held: list[float] = []
    pulse = Pulse(held.append)
    pulse.period = 0.2
    async with anyio.create_task_group() as group:
        group.start_soon(pulse.beat, lambda: None)
        await anyio.sleep(0.05)
        block(1)
        with anyio.fail_after(LIMIT):
            # A slow machine may have held it before, for less.
            while not any(seconds > 0.5 for seconds in held):
                await anyio.sleep(0.01)

        group.cancel_scope.cancel("told")

    # It cannot have been held for longer than this test took.
    assert max(held) < LIMIT


async def test_nobody_is_asked_for_a_sign_of_life_until_it_is_wanted() -> None:
    asked: list[float] = []
    pulse = Pulse(lambda seconds: None)
    pulse.period = 0.01
    async with anyio.create_task_group() as group:
        group.start_soon(pulse.beat, lambda: asked.append(0))
        await anyio.sleep(0.1)
        assert not asked
        pulse.wanted = True
        with anyio.fail_after(LIMIT):
            while len(asked) < 2:
                await anyio.sleep(0.01)

        group.cancel_scope.cancel("asked")
