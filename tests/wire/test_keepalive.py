"""When a link gives its peer up, and when it does not: in virtual time, with a peer in memory."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from nats_jobs.wire._handshake import Greeted
from nats_jobs.wire._link import Link
from nats_jobs.wire._messages import Msg
from nats_jobs.wire._options import Options
from nats_jobs.wire._pulse import Pulse
from nats_jobs.wire._urls import parse_url
from support.virtual_time import anyio_backend as anyio_backend, pause

pytestmark = pytest.mark.anyio

INTERVAL = 10.0
MOST = 2
MEGABYTE = 1024 * 1024


class Peer(ByteStream):
    """Takes what is sent, `takes` seconds for each piece, and answers each PING unless told not to."""

    def __init__(self) -> None:
        self.takes = 0.0
        self.answers = True
        self.taken = 0
        self._to_client = bytearray()
        self._arrival = anyio.Event()

    def say(self, data: bytes) -> None:
        self._to_client += data
        self._arrival.set()
        self._arrival = anyio.Event()

    async def send(self, item: bytes) -> None:
        await anyio.sleep(self.takes)
        self.taken += len(item)
        if self.answers:
            self.say(b"PONG\r\n" * item.count(b"PING\r\n"))

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while not self._to_client:
            await self._arrival.wait()

        data = bytes(self._to_client[:max_bytes])
        del self._to_client[:max_bytes]
        return data

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


class Owner:
    """Notes why and when the link broke."""

    def __init__(self) -> None:
        self.broke: list[tuple[float, str]] = []

    def take_message(self, message: Msg) -> None: ...

    def take_info(self, link: Link, fields: dict[str, Any]) -> None: ...

    def take_error(self, link: Link, text: str) -> None: ...

    def link_broke(self, link: Link, reason: str) -> None:
        self.broke.append((anyio.current_time(), reason))


class Wire:
    def __init__(self) -> None:
        self.peer = Peer()
        self.owner = Owner()
        self.since = anyio.current_time()
        options = Options(ping_interval=INTERVAL, max_outstanding_pings=MOST, pending_size=10**9)
        self.link = Link(
            Greeted(parse_url("nats://peer"), self.peer), options, Pulse(lambda late: None), self.owner
        )

    def broke(self) -> tuple[float, str]:
        """Return after how many intervals the link broke, and why."""
        [(at, why)] = self.owner.broke
        return round((at - self.since) / INTERVAL, 3), why

    async def until_broken(self, intervals: float = 100) -> None:
        with anyio.move_on_after(intervals * INTERVAL):
            while not self.owner.broke:
                await anyio.sleep(0.1)


@asynccontextmanager
async def wire() -> AsyncIterator[Wire]:
    built = Wire()
    async with anyio.create_task_group() as group:
        group.start_soon(built.link.run)
        yield built
        group.cancel_scope.cancel("the test is over")


async def repeat(period: float, action: Callable[[], None]) -> None:
    while True:
        await anyio.sleep(period)
        action()


async def test_a_quiet_link_lasts() -> None:
    async with wire() as it:
        await it.until_broken(1000)
        assert not it.owner.broke


async def test_a_silent_peer_is_given_up_after_so_many_pings() -> None:
    async with wire() as it:
        it.peer.answers = False
        await it.until_broken()
        assert it.broke() == (MOST + 1, f"stale: no answer to {MOST} pings")


async def test_bytes_are_a_sign_of_life_for_a_while_and_not_for_ever() -> None:
    """They may be those of a message whose length was a lie."""
    async with wire() as it, anyio.create_task_group() as group:
        it.peer.answers = False
        it.peer.say(b"MSG a 1 1000000\r\n")
        group.start_soon(repeat, INTERVAL / 5, lambda: it.peer.say(b"x"))
        await it.until_broken()
        intervals, why = it.broke()
        assert 5 * MOST < intervals < 10 * MOST
        assert "though bytes come" in why
        group.cancel_scope.cancel("the test is over")


async def test_a_peer_that_talks_lasts_when_it_answers_late() -> None:
    """The PONG is behind megabytes."""
    async with wire() as it, anyio.create_task_group() as group:
        it.peer.answers = False
        group.start_soon(repeat, INTERVAL / 5, lambda: it.peer.say(b"MSG a 1 1\r\nx\r\n"))
        await anyio.sleep(4.5 * INTERVAL)
        group.start_soon(repeat, INTERVAL, lambda: it.peer.say(b"PONG\r\n"))
        await it.until_broken(1000)
        assert not it.owner.broke
        group.cancel_scope.cancel("the test is over")


async def test_a_send_that_is_stuck_is_given_up_though_the_peer_talks() -> None:
    async with wire() as it, anyio.create_task_group() as group:
        group.start_soon(repeat, INTERVAL / 5, lambda: it.peer.say(b"PING\r\n"))
        it.peer.takes = math.inf
        await it.until_broken()
        intervals, why = it.broke()
        assert MOST < intervals <= MOST + 2
        assert why == f"a send has been stuck for {INTERVAL * MOST:g} s"
        group.cancel_scope.cancel("the test is over")


async def test_a_slow_peer_that_takes_piece_after_piece_is_not_stuck() -> None:
    async with wire() as it, anyio.create_task_group() as group:
        it.peer.takes = 1.5 * INTERVAL
        group.start_soon(repeat, INTERVAL / 5, lambda: it.peer.say(b"PING\r\n"))
        await anyio.sleep(1)
        for _ in range(6):
            it.link.publish(b"PUB a ", bytes(MEGABYTE))

        with anyio.move_on_after(100 * INTERVAL):
            while it.peer.taken < 6 * MEGABYTE and not it.owner.broke:
                await anyio.sleep(1)

        assert it.peer.taken >= 6 * MEGABYTE
        assert not it.owner.broke
        group.cancel_scope.cancel("the test is over")


async def test_after_a_pause_of_the_process_the_peer_has_its_chance() -> None:
    async with wire() as it:
        for _ in range(10):
            await anyio.sleep(1.3 * INTERVAL)
            pause(100 * INTERVAL)

        await it.until_broken(10)
        assert not it.owner.broke


async def test_the_first_reason_of_a_break_counts_and_it_is_told_once() -> None:
    async with wire() as it:
        await anyio.sleep(1)
        it.link.break_off("first")
        it.link.break_off("second")
        await anyio.sleep(1)
        assert [why for _, why in it.owner.broke] == ["first"]
        assert it.link.reason == "first"


async def test_a_sign_of_life_is_not_asked_for_again_while_one_is_on_its_way() -> None:
    async with wire() as it:
        it.peer.answers = False
        for _ in range(5):
            it.link.feel()
            await anyio.sleep(0.1)

        assert it.peer.taken == len(b"PING\r\n")
