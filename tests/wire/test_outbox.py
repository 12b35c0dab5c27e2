"""The outbox: in which pieces it sends, and that who waits for room is not left waiting when nothing more will be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest
from anyio.abc import ByteStream

from nats_jobs.errors import ServerRefused
from nats_jobs.wire._outbox import Outbox
from support.virtual_time import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio


def full_outbox() -> Outbox:
    outbox = Outbox(cast(ByteStream, None), 10)
    assert outbox.publish(b"PUB a ", bytes(11))
    return outbox


async def test_much_is_sent_in_pieces_and_little_as_one() -> None:
    """A slow peer is noticed by the clock of one send."""
    sent: list[int] = []

    class Sink:
        async def send(self, item: bytes) -> None:
            sent.append(len(item))

    outbox = Outbox(cast(ByteStream, Sink()), 10**9)
    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        for size in (1, 2, 5 * 1024 * 1024 // 2):
            outbox.write(bytes(size))

        await anyio.sleep(1)
        assert len(sent) == 3
        assert max(sent) <= 1024 * 1024
        outbox.write(b"a")
        outbox.write(b"b")
        await anyio.sleep(1)
        assert sent[3:] == [2]
        assert not outbox.sending
        group.cancel_scope.cancel("the test is over")


async def test_who_waits_for_room_is_woken_when_the_outbox_is_closed() -> None:
    outbox = full_outbox()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(outbox.give_way)

            await anyio.sleep(1)
            outbox.close()


async def test_who_comes_when_the_outbox_is_closed_does_not_wait() -> None:
    outbox = full_outbox()
    outbox.close()
    with anyio.fail_after(5):
        await outbox.give_way()


async def test_of_many_who_wait_for_room_only_as_many_go_on_as_there_is_room_for() -> None:
    class Sink:
        async def send(self, item: bytes) -> None:
            await anyio.sleep(1)

    outbox = Outbox(cast(ByteStream, Sink()), 10)

    async def publish() -> None:
        for _ in range(5):
            await outbox.give_way()
            assert outbox.queued <= 10
            outbox.publish(b"PUB a ", bytes(11))

    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        async with anyio.create_task_group() as publishers:
            for _ in range(5):
                publishers.start_soon(publish)

        group.cancel_scope.cancel("the test is over")

    assert outbox.messages_out == 25


async def test_who_publishes_on_and_on_when_it_is_closed_lets_others_have_turns() -> None:
    """What comes next takes the link away from the publisher, and must come to its turn."""
    outbox = full_outbox()
    outbox.close()
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(3):
            assert outbox.publish(b"PUB a ", b"")
            await outbox.give_way()

        turns.append("published")

    assert turns == ["other", "published"]


@pytest.mark.parametrize("view", [lambda data: data, memoryview], ids=["bytearray", "memoryview"])
async def test_what_its_owner_may_change_is_copied_and_counted_as_a_message(
    view: Callable[[bytearray], Any],
) -> None:
    sent: list[bytes] = []

    class Sink:
        async def send(self, item: bytes) -> None:
            sent.append(item)

    outbox = Outbox(cast(ByteStream, Sink()), 10**9)
    data = bytearray(b"before")
    outbox.publish(b"PUB a ", view(data))
    outbox.write(b"PING\r\n")
    outbox.publish(b"HPUB b ", b"z" * 2000, b"NATS/1.0\r\n\r\n")
    outbox.write_first(b"PONG\r\n")
    data[:] = b"behind"
    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        await anyio.sleep(1)
        group.cancel_scope.cancel("the test is over")

    assert sent == [
        b"PONG\r\nPUB a 6\r\nbefore\r\nPING\r\nHPUB b 12 2012\r\nNATS/1.0\r\n\r\n" + b"z" * 2000 + b"\r\n"
    ]
    assert outbox.messages_out == 2


async def test_commands_are_counted_as_no_messages_however_many_they_are() -> None:
    class Sink:
        async def send(self, item: bytes) -> None: ...

    outbox = Outbox(cast(ByteStream, Sink()), 10**9)
    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        for number in range(20):
            outbox.write(b"PING\r\n")
            outbox.write_first(b"PONG\r\n")
            assert outbox.messages_out == number
            outbox.publish(b"PUB a ", b"")
            assert outbox.messages_out == number + 1
            await anyio.sleep(number % 2)
            assert outbox.messages_out == number + 1

        group.cancel_scope.cancel("the test is over")


async def test_commands_take_of_the_room_too() -> None:
    outbox = Outbox(cast(ByteStream, None), 15)
    assert not outbox.publish(b"PUB a ", b"")
    outbox.write(b"PING\r\n")
    assert outbox.publish(b"PUB a ", b"")


async def test_a_pong_is_sent_when_nothing_else_is() -> None:
    sent: list[bytes] = []

    class Sink:
        async def send(self, item: bytes) -> None:
            sent.append(item)

    outbox = Outbox(cast(ByteStream, Sink()), 10**9)
    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        await anyio.sleep(1)
        outbox.write_first(b"PONG\r\n")
        await anyio.sleep(1)
        group.cancel_scope.cancel("the test is over")

    assert sent == [b"PONG\r\n"]


async def test_each_who_is_refused_headers_gets_an_error_of_its_own() -> None:
    """One that is raised twice would gather the tracebacks of both."""
    outbox = Outbox(cast(ByteStream, None), 10)
    outbox.refuses_headers = ServerRefused("here", "no headers")
    for _ in range(2):
        with pytest.raises(ServerRefused, match="no headers") as caught:
            outbox.publish(b"HPUB a ", b"", b"NATS/1.0\r\n\r\n")

        assert caught.value is not outbox.refuses_headers
