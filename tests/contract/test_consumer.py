"""What a pull consumer does with deliveries and answers: the real server and the fake one alike.

The rules are those that the lease stands on. That the fake obeys them too is what makes the
tests in virtual time worth something.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias, cast

import anyio
import pytest
import trio.testing
from anyio.abc import TaskGroup
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from nats_jobs._clock import running_clock
from nats_jobs.jetstream import ACK, Delivery, JetStreamApi, Puller, Settlement, jetstream_context
from nats_jobs.server import Server
from nats_jobs.wire import Connection, Msg, Reply, connect
from support.fake_link import FakeServer
from support.virtual_time import VirtualLoop

pytestmark = pytest.mark.anyio

LIMIT = 30.0
LONG = 60.0
SHORT = 1.0
# What clocks of two processes and their rounding may differ by.
ROUNDING = 0.01
TRIES = 5

Open: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Connection, Any]]]


class TooSlowError(Exception):
    """This machine was held up, so that what was seen proves nothing."""


class Holder:
    """Somebody who pulls from the consumer, over a connection of its own."""

    def __init__(self, connection: Connection, puller: Puller) -> None:
        self.connection = connection
        self.puller = puller
        self.deliveries: list[Delivery] = []
        self.changed = anyio.Event()

    def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.changed.set()

    async def receive(self, *, ask: bool = True) -> Delivery:
        """Pull one delivery and wait for it."""
        if ask:
            assert self.puller.pull(1) == 1

        with anyio.fail_after(LIMIT):
            while not self.deliveries:
                self.changed = anyio.Event()
                await self.changed.wait()

        return self.deliveries.pop(0)

    async def reply_to(self, delivery: Delivery, data: bytes | Settlement) -> Reply:
        """Answer, whatever was answered before, and return the server's reply."""
        replies: list[Reply] = []
        answered = anyio.Event()

        def on_reply(reply: Reply) -> None:
            replies.append(reply)
            answered.set()

        body = data.body if isinstance(data, Settlement) else data
        self.connection.lowlevel.request_nowait(ack_subject(delivery), body, on_reply)
        with anyio.fail_after(LIMIT):
            await answered.wait()

        return replies[0]


def ack_subject(delivery: Delivery) -> str:
    return delivery._message.reply


class Bench:
    """A stream with one consumer, on a server that is real or not."""

    def __init__(
        self, group: TaskGroup, js: Any, name: str, open_connection: Open, publish: Any, count: Any
    ) -> None:
        self.name = name
        self.publish: Callable[[bytes], Awaitable[None]] = publish
        self.count: Callable[[], Awaitable[int]] = count
        self._group = group
        self._js = js
        self._open = open_connection

    async def holder(self) -> Holder:
        """Return one who has not pulled anything yet."""
        started = anyio.Event()

        async def live() -> None:
            async with self._open() as (connection, _), anyio.create_task_group() as group:
                holder = Holder(connection, cast(Puller, None))
                holder.puller = Puller(
                    JetStreamApi(connection), self.name, "C",
                    expires=30.0, clock=running_clock(), on_delivery=holder.take, on_ready=started.set, on_trouble=lambda: None,
                )  # fmt: skip
                holders.append(holder)
                group.start_soon(holder.puller.run)

        holders: list[Holder] = []
        self._group.start_soon(live)
        await started.wait()
        return holders[0]


class RealBackends:
    """Benches on the shared nats-server."""

    def __init__(self, server: Server, name: str) -> None:
        self._url = server.url
        self._name = name
        self._count = 0

    @asynccontextmanager
    async def bench(self, ack_wait: float) -> AsyncIterator[Bench]:
        self._count += 1
        name = f"{self._name}_{self._count}"
        async with connect(self._url) as connection, anyio.create_task_group() as group:
            js = jetstream_context(connection)
            await js.add_stream(StreamConfig(name, subjects=[name], retention=RetentionPolicy.WORK_QUEUE))
            consumer = ConsumerConfig(durable_name="C", ack_policy=AckPolicy.EXPLICIT, ack_wait=ack_wait)
            await js.add_consumer(name, consumer)

            async def publish(data: bytes) -> None:
                await js.publish(name, data)

            async def count() -> int:
                return int((await js.stream_info(name)).state.messages)

            yield Bench(group, js, name, self._connect, publish, count)
            group.cancel_scope.cancel("the rule was tested")

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[tuple[Connection, Any]]:
        async with connect(self._url) as connection:
            yield connection, jetstream_context(connection)


class FakeBackends:
    """Benches on the fake server."""

    @asynccontextmanager
    async def bench(self, ack_wait: float) -> AsyncIterator[Bench]:
        server = FakeServer(running_clock(), ack_wait=ack_wait)

        async def publish(data: bytes) -> None:
            server.publish(data)

        async def count() -> int:
            return len(server.messages)

        @asynccontextmanager
        async def open_link() -> AsyncIterator[tuple[Connection, Any]]:
            yield cast(Connection, server.link(f"link{len(server.links)}")), None

        async with anyio.create_task_group() as group:
            group.start_soon(server.run)
            yield Bench(group, None, server.stream, open_link, publish, count)
            group.cancel_scope.cancel("the rule was tested")


Backends: TypeAlias = RealBackends | FakeBackends


@pytest.fixture(params=["real-asyncio", "real-uvloop", "real-trio", "fake-asyncio", "fake-trio"])
def kind(request: pytest.FixtureRequest) -> str:
    return cast(str, request.param)


@pytest.fixture
def anyio_backend(kind: str) -> tuple[str, dict[str, Any]]:
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "real-asyncio": ("asyncio", {}),
        "real-uvloop": ("asyncio", {"use_uvloop": True}),
        "real-trio": ("trio", {}),
        "fake-asyncio": ("asyncio", {"loop_factory": VirtualLoop}),
        "fake-trio": ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}),
    }
    return options[kind]


@pytest.fixture
def backends(kind: str, name: str, request: pytest.FixtureRequest) -> Iterator[Backends]:
    if kind.startswith("real"):
        yield RealBackends(request.getfixturevalue("shared_server"), name)
    else:
        yield FakeBackends()


async def obey(backends: Backends, rule: Callable[[Bench], Awaitable[None]], ack_wait: float = LONG) -> None:
    """Try a rule on a fresh stream; again when the machine was too slow for it to show."""
    for _ in range(TRIES):
        try:
            async with backends.bench(ack_wait) as bench:
                await rule(bench)
                return
        except* TooSlowError:
            pass

    raise AssertionError("too late each time: does it happen only when the ack deadline is over?")


def now() -> float:
    return running_clock()()


def in_time(since: float, limit: float) -> None:
    if now() - since > limit:
        raise TooSlowError


def is_confirmed(reply: Reply) -> bool:
    return isinstance(reply, Msg) and reply.data == b"" and not reply.has_headers


async def test_messages_come_in_their_order_with_their_numbers(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one = await bench.holder()
        for number in range(3):
            await bench.publish(b"%d" % number)

        got = [await one.receive() for _ in range(3)]
        assert [(d.sequence, d.attempt, d.data) for d in got] == [(1, 1, b"0"), (2, 1, b"1"), (3, 1, b"2")]
        assert {d.subject for d in got} == {bench.name}

    await obey(backends, rule)


async def test_requests_are_served_in_turn(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one, other = await bench.holder(), await bench.holder()
        one.puller.pull(2)
        await one.connection.flush()
        other.puller.pull(1)
        await other.connection.flush()
        for number in range(3):
            await bench.publish(b"%d" % number)

        assert (await one.receive(ask=False)).sequence == 1
        assert (await other.receive(ask=False)).sequence == 2
        assert (await one.receive(ask=False)).sequence == 3

    await obey(backends, rule)


@pytest.mark.parametrize("answer", [ACK, Settlement.term("enough")])
async def test_an_ack_or_a_term_removes_the_message(backends: Backends, answer: Settlement) -> None:
    async def rule(bench: Bench) -> None:
        one = await bench.holder()
        await bench.publish(b"")
        delivery = await one.receive()
        assert is_confirmed(await one.reply_to(delivery, answer))
        assert await bench.count() == 0

    await obey(backends, rule)


@pytest.mark.parametrize(
    "again", [ACK, Settlement.term(), Settlement.nak(), Settlement.nak(5), b"+WPI", b"nonsense"]
)
async def test_what_is_said_after_the_ack_is_confirmed_and_changes_nothing(
    backends: Backends, again: bytes | Settlement
) -> None:
    async def rule(bench: Bench) -> None:
        one = await bench.holder()
        await bench.publish(b"1")
        delivery = await one.receive()
        await one.reply_to(delivery, ACK)
        assert is_confirmed(await one.reply_to(delivery, again))
        await bench.publish(b"2")
        assert (await one.receive()).data == b"2"
        assert await bench.count() == 1

    await obey(backends, rule)


async def test_a_nak_brings_it_back_at_once(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one, other = await bench.holder(), await bench.holder()
        await bench.publish(b"")
        delivery = await one.receive()
        assert is_confirmed(await one.reply_to(delivery, Settlement.nak()))
        again = await other.receive()
        assert (again.sequence, again.attempt) == (delivery.sequence, 2)

    await obey(backends, rule)


async def test_a_nak_with_a_delay_brings_it_back_when_that_is_over(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one = await bench.holder()
        await bench.publish(b"")
        delivery = await one.receive()
        asked_at = now()
        assert is_confirmed(await one.reply_to(delivery, Settlement.nak(0.5)))
        assert (await one.receive()).attempt == 2
        assert now() - asked_at >= 0.5 - ROUNDING

    await obey(backends, rule)


async def test_without_an_answer_it_comes_again_when_ack_wait_is_over(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one, other = await bench.holder(), await bench.holder()
        asked_at = now()
        await bench.publish(b"")
        await one.receive()
        assert (await other.receive()).attempt == 2
        assert now() - asked_at >= SHORT - ROUNDING

    await obey(backends, rule, SHORT)


async def test_what_comes_again_comes_before_what_is_new(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one = await bench.holder()
        await bench.publish(b"")
        delivery = await one.receive()
        await one.reply_to(delivery, Settlement.nak())
        await bench.publish(b"")
        assert [(await one.receive()).sequence, (await one.receive()).sequence] == [1, 2]

    await obey(backends, rule)


async def test_an_extension_starts_ack_wait_anew(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one, other = await bench.holder(), await bench.holder()
        began = now()
        await bench.publish(b"")
        delivery = await one.receive()
        await anyio.sleep(SHORT / 2)
        asked_at = now()
        assert is_confirmed(await one.reply_to(delivery, b"+WPI"))
        in_time(began, 0.9 * SHORT)
        assert (await other.receive()).attempt == 2
        assert now() - asked_at >= SHORT - ROUNDING

    await obey(backends, rule, SHORT)


async def lapse(bench: Bench) -> tuple[Holder, Delivery, Holder, Delivery, float]:
    """Let a delivery lapse and another holder have the message. The time is not later than the second delivery."""
    one, other = await bench.holder(), await bench.holder()
    await bench.publish(b"")
    former = await one.receive()
    began = now()
    present = await other.receive()
    assert (former.attempt, present.attempt) == (1, 2)
    in_time(began, 1.25 * SHORT)
    return one, former, other, present, began + SHORT


@pytest.mark.parametrize("answer", [ACK, Settlement.term("enough")])
async def test_a_former_holder_ends_what_the_present_one_works_on(
    backends: Backends, answer: Settlement
) -> None:
    async def rule(bench: Bench) -> None:
        one, former, other, present, _ = await lapse(bench)
        assert is_confirmed(await one.reply_to(former, answer))
        assert await bench.count() == 0
        assert is_confirmed(await other.reply_to(present, Settlement.nak()))

    await obey(backends, rule, SHORT)


async def test_a_former_holder_can_give_away_what_the_present_one_works_on(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one, former, _, _, since = await lapse(bench)
        assert is_confirmed(await one.reply_to(former, Settlement.nak()))
        assert (await one.receive()).attempt == 3
        # Later it would have come by itself.
        in_time(since, 0.9 * SHORT)

    await obey(backends, rule, SHORT)


async def test_a_former_holder_can_extend_the_lease_of_the_present_one(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one, former, _, _, since = await lapse(bench)
        await anyio.sleep(SHORT / 2)
        asked_at = now()
        assert is_confirmed(await one.reply_to(former, b"+WPI"))
        in_time(since, 0.9 * SHORT)
        assert (await one.receive()).attempt == 3
        assert now() - asked_at >= SHORT - ROUNDING

    await obey(backends, rule, SHORT)


async def test_an_ack_after_the_deadline_counts_when_nobody_has_it_yet(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one = await bench.holder()
        await bench.publish(b"")
        delivery = await one.receive()
        await anyio.sleep(1.5 * SHORT)
        assert is_confirmed(await one.reply_to(delivery, ACK))
        assert await bench.count() == 0
        await bench.publish(b"next")
        assert (await one.receive()).data == b"next"

    await obey(backends, rule, SHORT)


async def test_an_answer_for_a_message_that_never_was_has_no_reply(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one = await bench.holder()
        await bench.publish(b"")
        delivery = await one.receive()
        tokens = ack_subject(delivery).split(".")
        tokens[5] = "999"
        replies: list[Reply] = []
        one.connection.lowlevel.request_nowait(".".join(tokens), ACK.body, replies.append)
        assert is_confirmed(await one.reply_to(delivery, b"+WPI"))
        await one.connection.flush()
        assert not replies

    await obey(backends, rule)


async def test_a_pull_request_that_was_taken_back_is_not_served(backends: Backends) -> None:
    async def rule(bench: Bench) -> None:
        one, other = await bench.holder(), await bench.holder()
        one.puller.pull(1)
        await one.connection.flush()
        await one.puller.close()
        await bench.publish(b"")
        assert (await other.receive()).attempt == 1
        assert not one.deliveries

    await obey(backends, rule)
