"""Publish, subscribe, ask: what a connection does with a real server while nothing goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from nats_jobs.errors import (
    BadSubject,
    ConnectionClosed,
    NoResponders,
    PayloadTooLarge,
    RequestTimeout,
    ServerRefused,
    UsageError,
)
from nats_jobs.server import run_server
from nats_jobs.wire import Connection, HeaderInput, Msg, connect, encode_headers
from support.connections import LIMIT, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def nc(url: str) -> AsyncIterator[Connection]:
    async with connect(url) as connection:
        yield connection


async def taken(nc: Connection, subject: str, count: int) -> list[Msg]:
    """Subscribe, let the connection itself publish so many, and return what came."""
    async with nc.subscribe(subject) as messages:
        for number in range(count):
            await nc.publish(subject, b"%d" % number)

        with anyio.fail_after(LIMIT):
            return [await messages.receive() for _ in range(count)]


class Place(str, Enum):  # noqa: UP042  # the format() of a StrEnum is its text
    """As a program names its subjects."""

    WORK = "work"
    DESK = "desk"


async def test_messages_arrive_whole_and_in_order(nc: Connection, name: str) -> None:
    received = await taken(nc, name, 1000)
    assert [message.data for message in received] == [b"%d" % number for number in range(1000)]
    assert {message.subject for message in received} == {name}


@pytest.mark.parametrize("size", [0, 1, 2, 1023, 1024, 1025, 4096, 65536, 1024 * 1024])
async def test_a_payload_of_any_size_that_the_server_takes_arrives(
    nc: Connection, name: str, size: int
) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with nc.subscribe(name) as messages:
        await nc.publish(name, data)
        with anyio.fail_after(LIMIT):
            assert (await messages.receive()).data == data


@pytest.mark.smoke
async def test_headers_and_reply_subject_arrive(nc: Connection, name: str) -> None:
    async with nc.subscribe(name) as messages:
        await nc.publish(name, b"x", f"{name}.reply", {"A": ["1", "2"], "B": "é"})
        await nc.publish(name, b"y")
        with anyio.fail_after(LIMIT):
            first, second = await messages.receive(), await messages.receive()

    assert (first.reply, first.headers.get_all("A"), first.headers["B"]) == (f"{name}.reply", ["1", "2"], "é")
    assert (first.has_headers, second.has_headers, second.reply) == (True, False, "")


@pytest.mark.smoke
async def test_what_is_sent_without_waiting_arrives_with_its_headers(nc: Connection, name: str) -> None:
    async with nc.subscribe(name) as messages:
        nc.lowlevel.publish_nowait(name, "x.y", encode_headers({"A": "1"}), b"with")
        nc.lowlevel.publish_nowait(name, "", b"", b"without")
        with anyio.fail_after(LIMIT):
            one, two = await messages.receive(), await messages.receive()

    assert (one.data, one.reply, dict(one.headers)) == (b"with", "x.y", {"A": "1"})
    assert (two.data, two.reply, dict(two.headers)) == (b"without", "", {})


async def test_no_headers_are_none_however_they_are_given(nc: Connection, name: str) -> None:
    none: tuple[HeaderInput | None, ...] = (None, {}, b"")
    async with nc.subscribe(name) as messages:
        for headers in none:
            for reply in ("", "x.y"):
                await nc.publish(name, b"1", reply, headers)
                with anyio.fail_after(LIMIT):
                    message = await messages.receive()

                assert not message.has_headers
                assert message.reply == reply


async def test_a_member_of_an_enumeration_stands_for_its_text(nc: Connection) -> None:
    """Whoever uses the text itself later must not be led elsewhere either."""
    async with nc.subscribe(Place.WORK, queue=Place.DESK) as messages:
        await nc.publish(Place.WORK, b"1", reply=Place.DESK)
        await nc.publish(Place.WORK, b"2")
        await nc.publish("work", b"3")
        nc.lowlevel.request_nowait(Place.WORK, b"4", lambda reply: None)
        with anyio.fail_after(LIMIT):
            received = [await messages.receive() for _ in range(4)]

    assert [message.data for message in received] == [b"1", b"2", b"3", b"4"]
    assert {message.subject for message in received} == {"work"}
    assert received[0].reply == "desk"


async def test_wildcards_match_as_the_server_says(nc: Connection, name: str) -> None:
    async with nc.subscribe(f"{name}.*") as one, nc.subscribe(f"{name}.>") as rest:
        await nc.publish(f"{name}.a")
        await nc.publish(f"{name}.a.b")
        await nc.flush()
        await one.drain()
        await rest.drain()
        assert [message.subject async for message in one] == [f"{name}.a"]
        assert [message.subject async for message in rest] == [f"{name}.a", f"{name}.a.b"]


async def test_in_a_queue_group_each_message_goes_to_one(url: str, name: str) -> None:
    async with (
        connect(url) as first,
        connect(url) as second,
        first.subscribe(name, "workers") as a,
        second.subscribe(name, "workers") as b,
    ):
        await first.flush()
        await second.flush()
        for number in range(200):
            await first.publish(name, b"%d" % number)

        await first.flush()
        await a.drain()
        await b.drain()
        received = [[int(message.data) async for message in each] for each in (a, b)]

    assert sorted(received[0] + received[1]) == list(range(200))
    assert all(received)


@pytest.mark.smoke
async def test_a_request_gets_the_reply_and_responding_repeats_no_headers(nc: Connection, name: str) -> None:
    async def serve() -> None:
        async with nc.subscribe(name) as requests:
            ready.set()
            message = await requests.receive()
            await message.respond(message.data * 2)

    ready = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        await ready.wait()
        reply = await nc.request(name, b"ab", headers={"Secret": "1"}, timeout=LIMIT)
        assert reply.data == b"abab"
        assert not reply.has_headers


async def test_replies_find_their_requests_in_any_order(nc: Connection, name: str) -> None:
    async def serve() -> None:
        async with nc.subscribe(name) as requests:
            ready.set()
            for message in reversed([await requests.receive() for _ in range(50)]):
                await message.respond(message.data)

    async def ask(number: int) -> None:
        reply = await nc.request(name, b"%d" % number, timeout=LIMIT)
        replies[number] = int(reply.data)

    ready = anyio.Event()
    replies: dict[int, int] = {}
    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        await ready.wait()
        for number in range(50):
            group.start_soon(ask, number)

    assert replies == {number: number for number in range(50)}


async def test_a_reply_can_be_answered(nc: Connection, name: str) -> None:
    async def serve() -> None:
        async with nc.subscribe(name) as requests:
            ready.set()
            message = await requests.receive()
            answer = await _ask_back(nc, message)
            answers.append(answer.data)

    ready = anyio.Event()
    answers: list[bytes] = []
    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        await ready.wait()
        reply = await nc.request(name, b"?", timeout=LIMIT)
        await reply.respond(b"thanks")

    assert answers == [b"thanks"]


async def _ask_back(nc: Connection, message: Msg) -> Msg:
    async with nc.subscribe(inbox := nc.new_inbox()) as replies:
        await nc.publish(message.reply, b"!", inbox)
        return await replies.receive()


@pytest.mark.smoke
async def test_a_request_to_nobody_fails_at_once(nc: Connection, name: str) -> None:
    with anyio.fail_after(LIMIT), pytest.raises(NoResponders, match=name):
        await nc.request(name, timeout=1000)


async def test_a_request_that_is_not_answered_fails_in_time_and_leaves_nothing(
    nc: Connection, name: str
) -> None:
    async with nc.subscribe(name):
        with pytest.raises(RequestTimeout, match=name):
            await nc.request(name, timeout=0.05)

    assert not len(nc.lowlevel.requests)


async def test_a_cancelled_request_leaves_nothing(nc: Connection, name: str) -> None:
    late: list[Msg] = []
    async with nc.subscribe(name) as requests, anyio.create_task_group() as group:
        group.start_soon(nc.request, name)
        late.append(await requests.receive())
        group.cancel_scope.cancel("not interested any more")

    assert not len(nc.lowlevel.requests)
    await late[0].respond(b"too late")
    await nc.flush()


async def test_what_the_server_would_drop_or_close_for_is_refused_here(nc: Connection) -> None:
    for subject in ("", "a b", "a..b", "a.*", ">", "a\r\nPUB x 0"):
        with pytest.raises(BadSubject):
            await nc.publish(subject)

        with pytest.raises(BadSubject):
            await nc.request(subject)

    with pytest.raises(BadSubject):
        await nc.publish("a", reply="b c")

    with pytest.raises(BadSubject):
        await nc.publish("a" * 2500, reply="b" * 2500)

    with pytest.raises(BadSubject):
        async with nc.subscribe("a", "b c"):
            pass

    await nc.flush()
    assert not nc.reconnects


async def test_a_payload_that_is_no_bytes_is_refused_in_words(nc: Connection, name: str) -> None:
    with pytest.raises(UsageError, match="'text'; bytes are needed"):
        await nc.publish(name, "text")  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="bytes are needed"):
        await nc.request(name, {"a": 1})  # type: ignore[arg-type]

    assert nc.statistics().messages_out == 0


async def test_a_payload_above_the_servers_limit_is_refused_here(nc: Connection, name: str) -> None:
    data = bytes(nc.max_payload)
    await nc.publish(name, data)
    for headers, payload in ((None, data + b"x"), ({"A": "1"}, data)):
        with pytest.raises(PayloadTooLarge, match=str(nc.max_payload)):
            await nc.publish(name, payload, headers=headers)

    with pytest.raises(PayloadTooLarge):
        await nc.request(name, data + b"x")

    assert not len(nc.lowlevel.requests)
    await nc.flush()
    assert not nc.reconnects


async def test_headers_are_refused_where_the_server_takes_none(name: str) -> None:
    async with (
        run_server(config="no_header_support: true", jetstream=False) as server,
        connect(server.url) as nc,
    ):
        with pytest.raises(ServerRefused, match="does not accept headers"):
            await nc.publish(name, b"x", headers={"A": "1"})

        assert [message.data for message in await taken(nc, name, 3)] == [b"0", b"1", b"2"]
        assert not nc.reconnects


async def test_publishing_in_a_loop_lets_others_have_their_turns(nc: Connection, name: str) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(2000):
            await nc.publish(name, bytes(1000))

        group.cancel_scope.cancel("published")

    # 128 KiB a turn; but Trio shuffles who comes first in a turn, so that the other may miss every second one.
    assert turns >= 2000 * 1000 // (128 * 1024) // 2


async def test_publishing_in_a_loop_can_be_cancelled(nc: Connection, name: str) -> None:
    with anyio.fail_after(LIMIT), anyio.move_on_after(0.05):
        while True:
            await nc.publish(name, b"x")

    await nc.flush()


@pytest.mark.parametrize("size", [0, 1, 1000])
async def test_what_is_queued_is_bounded(url: str, name: str, size: int) -> None:
    """Also when messages have nothing but their lines."""
    async with connect(url, pending_size=10_000) as nc:
        link = nc.lowlevel.link
        assert link is not None
        most = 0
        for _ in range(2000):
            await nc.publish(name, bytes(size))
            most = max(most, len(b"".join(link._outbox._queue)))

        assert 5_000 < most < 20_000
        await nc.flush()


async def test_an_echo_can_be_declined(url: str, name: str) -> None:
    async with (
        connect(url, no_echo=True) as silent,
        connect(url) as other,
        silent.subscribe(name) as messages,
    ):
        await silent.publish(name, b"mine")
        await silent.flush()
        await other.publish(name, b"yours")
        with anyio.fail_after(LIMIT):
            assert (await messages.receive()).data == b"yours"


async def test_draining_delivers_what_was_sent_and_then_ends(nc: Connection, name: str) -> None:
    async with nc.subscribe(name) as messages, nc.subscribe(f"{name}.other") as others:
        for number in range(100):
            await nc.publish(name, b"%d" % number)

        await nc.drain()
        await nc.publish(name, b"too late")
        await nc.flush()
        assert [int(message.data) async for message in messages] == list(range(100))
        assert [message async for message in others] == []

    assert nc.connected
    assert [message.data for message in await taken(nc, name, 1)] == [b"0"]


async def test_draining_one_subscription_leaves_the_others(nc: Connection, name: str) -> None:
    async with nc.subscribe(name) as one, nc.subscribe(name) as other:
        await nc.publish(name, b"1")
        await one.drain()
        await nc.publish(name, b"2")
        await nc.flush()
        assert [message.data async for message in one] == [b"1"]
        assert [(await other.receive()).data for _ in range(2)] == [b"1", b"2"]


async def test_leaving_a_subscription_ends_those_who_wait_in_it(nc: Connection, name: str) -> None:
    async def wait() -> None:
        with pytest.raises(anyio.EndOfStream):
            await messages.receive()

    async with anyio.create_task_group() as group, nc.subscribe(name) as messages:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()


async def test_statistics_count_frames_and_bytes(nc: Connection, name: str) -> None:
    before = nc.statistics()
    await taken(nc, name, 10)
    await nc.flush()
    after = nc.statistics()
    assert after.messages_in - before.messages_in == 10
    assert after.messages_out - before.messages_out == 10
    assert after.bytes_out - before.bytes_out > 10 * len(f"PUB {name}  1\r\n1\r\n")
    assert after.bytes_in - before.bytes_in > 10 * len(f"MSG {name} 1 1\r\n1\r\n")
    assert after.reconnects == 0
    assert after.round_trip is not None
    assert 0 < after.round_trip < LIMIT


async def test_the_server_tells_who_it_is_and_sees_who_we_are(url: str) -> None:
    async with connect(url, name="a name to look for") as nc:
        assert nc.server_info["headers"] is True
        assert nc.max_payload == nc.server_info["max_payload"]
        await until(lambda: "connect_info" in nc.server_info or nc.server_info["version"] < "2.11")


async def test_a_connection_that_was_left_says_so(url: str, name: str) -> None:
    async with connect(url) as nc:
        pass

    assert not nc.connected
    for use in (nc.publish, nc.request):
        with pytest.raises(ConnectionClosed):
            await use(name)

    with pytest.raises(ConnectionClosed):
        await nc.flush()

    with pytest.raises(ConnectionClosed):
        nc.lowlevel.request_nowait(name, b"", lambda reply: None)

    async with nc.subscribe(name) as messages:
        with anyio.fail_after(LIMIT), pytest.raises(ConnectionClosed):
            await messages.receive()


async def test_leaving_sends_what_is_queued_also_when_cancelled(nc: Connection, url: str, name: str) -> None:
    async with nc.subscribe(name) as messages:
        await nc.flush()
        with anyio.CancelScope() as scope:
            async with connect(url) as other:
                for number in range(100):
                    await other.publish(name, b"%d" % number)

                scope.cancel("leaving in a hurry")
                await checkpoint()

        with anyio.fail_after(LIMIT):
            assert [int((await messages.receive()).data) for _ in range(100)] == list(range(100))


@pytest.mark.parametrize("where", ["sink", "on_reply"])
async def test_a_bug_in_the_reader_is_loud(url: str, name: str, where: str) -> None:
    def fail(message: object) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        async with connect(url) as nc:
            if where == "sink":
                nc.lowlevel.subscribe_nowait(name, fail)
                await nc.publish(name)
            else:
                nc.lowlevel.request_nowait(name, b"", fail)

            with anyio.fail_after(LIMIT):
                await anyio.sleep_forever()


async def test_a_call_from_the_event_loop_of_another_thread_is_refused_with_the_way_to_do_it(
    nc: Connection, name: str
) -> None:
    async def each() -> None:
        async def subscribe() -> None:
            async with nc.subscribe(name):
                pass

        for call in (
            lambda: nc.publish(name),
            lambda: nc.request(name),
            nc.flush,
            nc.drain,
            nc.wait_connected,
            subscribe,
        ):
            with pytest.raises(UsageError, match="another thread"):
                await call()

    await to_thread.run_sync(anyio.run, each)
    await nc.flush()


def test_a_connection_shows_nothing_internal() -> None:
    assert [name for name in dir(Connection) if not name.startswith("_")] == [
        "connected",
        "drain",
        "flush",
        "max_payload",
        "new_inbox",
        "publish",
        "reconnects",
        "request",
        "server_info",
        "statistics",
        "subscribe",
        "wait_connected",
    ]
