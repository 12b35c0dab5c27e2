"""The mailbox of a subscription: bounded, honest about what it dropped, and nobody sleeps beside a full one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from nats_jobs.errors import SlowConsumer, UsageError
from nats_jobs.wire import Connection, Msg, Subscription, connect
from support.connections import LIMIT, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def nc(url: str) -> AsyncIterator[Connection]:
    async with connect(url) as connection:
        yield connection


def message(data: bytes = b"", block: bytes = b"") -> Msg:
    return Msg("s", 1, "", block, data)


async def test_a_full_mailbox_drops_the_newest_and_says_how_many(nc: Connection, name: str) -> None:
    async with nc.subscribe(name, max_messages=3) as messages:
        for number in range(10):
            await nc.publish(name, b"%d" % number)

        await nc.flush()
        assert messages.pending == 3
        with pytest.raises(SlowConsumer, match="7 messages were dropped") as caught:
            await messages.receive()

        assert (caught.value.subject, caught.value.dropped) == (name, 7)
        assert [(await messages.receive()).data for _ in range(3)] == [b"0", b"1", b"2"]
        await nc.publish(name, b"new")
        with anyio.fail_after(LIMIT):
            assert (await messages.receive()).data == b"new"


async def test_the_mailbox_is_bounded_in_bytes_too(nc: Connection, name: str) -> None:
    async with nc.subscribe(name, max_bytes=2500) as messages:
        for _ in range(5):
            await nc.publish(name, bytes(1000))

        await nc.flush()
        assert (messages.pending, messages.pending_bytes) == (2, 2000)
        with pytest.raises(SlowConsumer, match="3 messages were dropped"):
            await messages.receive()


async def test_a_message_above_the_bound_is_taken_by_an_empty_mailbox(nc: Connection, name: str) -> None:
    async with nc.subscribe(name, max_bytes=10) as messages:
        await nc.publish(name, bytes(1000))
        with anyio.fail_after(LIMIT):
            assert len((await messages.receive()).data) == 1000

        assert messages.pending_bytes == 0


async def test_one_slow_subscription_does_not_hold_up_another(nc: Connection, name: str) -> None:
    async with nc.subscribe(name, max_messages=1) as slow, nc.subscribe(name) as quick:
        for number in range(100):
            await nc.publish(name, b"%d" % number)

        with anyio.fail_after(LIMIT):
            assert [int((await quick.receive()).data) for _ in range(100)] == list(range(100))

        assert slow.pending == 1


async def test_each_message_goes_to_one_of_several_receivers_and_none_is_left_asleep(
    nc: Connection, name: str
) -> None:
    received: list[int] = []

    async def receive() -> None:
        for _ in range(20):
            received.append(int((await messages.receive()).data))
            await anyio.sleep(0.001)

    with anyio.fail_after(LIMIT):
        async with nc.subscribe(name) as messages, anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(receive)

            for number in range(100):
                await nc.publish(name, b"%d" % number)
                if number % 10 == 0:
                    await anyio.sleep(0.002)

    assert sorted(received) == list(range(100))


async def test_cancelling_a_receiver_loses_no_message(nc: Connection, name: str) -> None:
    received: list[int] = []
    async with nc.subscribe(name) as messages:
        for number in range(200):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(_receive_into, messages, received)
                    await nc.publish(name, b"%d" % number)
                    if number % 3:
                        await anyio.lowlevel.checkpoint()

                    scope.cancel("changed my mind")

        await nc.flush()
        await messages.drain()
        received += [int(message.data) async for message in messages]

    assert received == list(range(200))


async def _receive_into(messages: Subscription, received: list[int]) -> None:
    received.append(int((await messages.receive()).data))


async def test_reading_a_full_mailbox_lets_others_have_their_turns(nc: Connection, name: str) -> None:
    async with nc.subscribe(name) as messages:
        for _ in range(1000):
            messages.deliver(message())

        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(other)
            for _ in range(1000):
                await messages.receive()

            group.cancel_scope.cancel("read")

        assert turns >= 1000 // 128


async def test_reading_a_full_mailbox_can_be_cancelled(nc: Connection, name: str) -> None:
    async with nc.subscribe(name) as messages:
        for _ in range(1000):
            messages.deliver(message())

        with anyio.CancelScope() as scope:
            scope.cancel("before the first")
            while True:
                await messages.receive()

        assert 900 < messages.pending < 1000


async def test_what_came_before_the_end_is_read_before_the_error(nc: Connection, name: str) -> None:
    async with nc.subscribe(name) as messages:
        messages.deliver(message(b"last"))
        messages.fail(ValueError("over"))
        messages.fail(KeyError("not this one"))
        assert (await messages.receive()).data == b"last"
        for _ in range(2):
            with pytest.raises(ValueError, match="over"):
                await messages.receive()


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 0), (-1, 1)])
async def test_a_mailbox_without_room_is_refused(nc: Connection, count: int, size: int) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        async with nc.subscribe("a", max_messages=count, max_bytes=size):
            pass


async def test_an_empty_mailbox_counts_no_bytes(nc: Connection, name: str) -> None:
    async with nc.subscribe(name, max_messages=50, max_bytes=3000) as messages:
        for number in range(300):
            await nc.publish(name, bytes(number % 120), headers={"A": "1"} if number % 2 else None)

        await nc.flush()
        await until(lambda: nc.statistics().messages_in >= 300)
        count = 0
        while messages.pending:
            try:
                count += len((await messages.receive()).data) >= 0
            except SlowConsumer as error:
                count += error.dropped

        assert (count, messages.pending_bytes) == (300, 0)
