"""What the server says with `-ERR`, and what it says in `INFO` while the link stands.

The rule: it is reported, it fails what it is about, and the socket decides whether the link survives.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketStream
from hypothesis import given, strategies as st

from nats_jobs.errors import PayloadTooLarge, PermissionDenied, ServerRefused
from nats_jobs.server import run_server
from nats_jobs.wire import Connection, connect
from nats_jobs.wire._server_errors import parse_server_error, readable
from support.connections import LIMIT, RecordingListener, quick, until
from support.peer import INFO, receive_until, scripted_peer

pytestmark = pytest.mark.anyio

PERMISSIONS = """
authorization { users = [ { user: u, password: p, permissions {
    publish { allow: ["ok.>", "_INBOX.>"] }
    subscribe { allow: ["ok.>", "_INBOX.>", "ok q"] }
} } ] }
"""
NO_INBOX = """
authorization { users = [ { user: u, password: p, permissions { subscribe { deny: ["_INBOX.>"] } } } ] }
"""


def _followed(start: str) -> st.SearchStrategy[str]:
    return st.text('"\\ abc\n').map(start.__add__)


@asynccontextmanager
async def connected_to(config: str, user: str = "") -> AsyncIterator[tuple[Connection, RecordingListener]]:
    listener = RecordingListener()
    async with run_server(config=config, jetstream=False) as server:
        url = server.url.replace("://", f"://{user}") if user else server.url
        async with connect(url, listener=listener, **quick()) as nc:
            yield nc, listener


async def test_a_refused_subscription_fails_alone() -> None:
    async with connected_to(PERMISSIONS, "u:p@") as (nc, listener):
        async with nc.subscribe("ok.a") as allowed, nc.subscribe("secret.a") as denied:
            with anyio.fail_after(LIMIT), pytest.raises(PermissionDenied, match=r"'secret\.a'"):
                await denied.receive()

            await nc.publish("ok.a", b"x")
            with anyio.fail_after(LIMIT):
                assert (await allowed.receive()).data == b"x"

        assert listener.errors == ['Permissions Violation for Subscription to "secret.a"']
        assert not nc.reconnects


async def test_a_refused_queue_group_fails_alone() -> None:
    async with (
        connected_to(PERMISSIONS, "u:p@") as (nc, _),
        nc.subscribe("secret", "group") as grouped,
        nc.subscribe("secret", "other") as other,
    ):
        for each, queue in ((grouped, "group"), (other, "other")):
            with anyio.fail_after(LIMIT), pytest.raises(PermissionDenied, match=f'using queue "{queue}"'):
                await each.receive()


async def test_a_refused_publish_is_reported_and_fails_the_requests_to_that_subject() -> None:
    async with connected_to(PERMISSIONS, "u:p@") as (nc, listener):
        await nc.publish("secret.b", b"x")
        await until(lambda: listener.errors)
        assert listener.errors == ['Permissions Violation for Publish to "secret.b"']
        with anyio.fail_after(LIMIT), pytest.raises(PermissionDenied, match=r"'secret\.b'"):
            await nc.request("secret.b", timeout=1000)

        assert not nc.reconnects


async def test_without_permission_for_the_inbox_requests_fail_at_once() -> None:
    async with connected_to(NO_INBOX, "u:p@") as (nc, listener):
        await until(lambda: listener.errors)
        for _ in range(2):
            with anyio.fail_after(LIMIT), pytest.raises(PermissionDenied, match="_INBOX"):
                await nc.request("a", timeout=1000)

    async with connected_to(NO_INBOX, "u:p@") as (nc, _):
        # Before the server has said so.
        with anyio.fail_after(LIMIT), pytest.raises(PermissionDenied, match="_INBOX"):
            await nc.request("a", timeout=1000)


async def test_too_many_subscriptions_fail_those_that_came_last() -> None:
    # One of the four is the inbox of the requests.
    async with connected_to("max_subscriptions: 4") as (nc, listener):
        failed: list[int] = []
        sids = [
            nc.lowlevel.subscribe_nowait(
                f"a.{number}", lambda message: None, on_error=_noting(failed, number)
            )
            for number in range(8)
        ]
        await until(lambda: len(failed) == 5)
        assert failed == [3, 4, 5, 6, 7]
        nc.lowlevel.unsubscribe(sids[0])
        async with nc.subscribe("b") as messages:
            await nc.publish("b", b"x")
            with anyio.fail_after(LIMIT):
                assert (await messages.receive()).data == b"x"

            async with nc.subscribe("c") as refused:
                with anyio.fail_after(LIMIT), pytest.raises(ServerRefused, match="maximum subscriptions"):
                    await refused.receive()

        assert len(listener.errors) == 6
        assert not nc.reconnects


def _noting(failed: list[int], number: int):  # type: ignore[no-untyped-def]
    def fail(error: Exception) -> None:
        if isinstance(error, ServerRefused):
            failed.append(number)

    return fail


async def test_a_line_above_a_lowered_limit_ends_the_link_and_says_why() -> None:
    async with connected_to("max_control_line: 256") as (nc, listener):
        await nc.publish("a" * 1000, b"x")
        await until(lambda: nc.connected and nc.reconnects)
        assert listener.errors == ["maximum control line exceeded"]
        assert "maximum control line exceeded" in listener.downs[0]
        await nc.flush()


class Voice:
    """What the test says in the server's name, between the answers to PINGs."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._turn = anyio.Lock()

    async def send(self, data: bytes) -> None:
        async with self._turn:
            await self._stream.send(data)

    async def close_with(self, data: bytes) -> None:
        async with self._turn:
            await self._stream.send(data)
            await self._stream.aclose()


@asynccontextmanager
async def connected_to_peer() -> AsyncIterator[tuple[Connection, Voice, RecordingListener]]:
    """A peer that greets, answers every PING, and leaves the rest to the test."""
    voices: list[Voice] = []
    listener = RecordingListener()

    async def script(stream: SocketStream) -> None:
        voices.append(Voice(stream))
        await stream.send(INFO)
        while True:
            received = await receive_until(stream, b"PING\r\n")
            await voices[-1].send(b"PONG\r\n" * received.count(b"PING\r\n"))

    async with scripted_peer(script) as peer, connect(peer.url, listener=listener, **quick()) as nc:
        yield nc, voices[0], listener


@pytest.mark.parametrize(
    "text",
    [
        "Invalid Publish Subject",
        "Something that nobody has heard of",
        "Permissions Violation for Publish to ",
        'Permissions Violation for Subscription to "unbalanced',
        'Permissions Violation for Subscription to "never asked for"',
        "Invalid Subject",
        "maximum subscriptions exceeded",
        "",
    ],
)
async def test_an_error_that_closes_nothing_is_reported_and_nothing_more(text: str) -> None:
    async with connected_to_peer() as (nc, voice, listener):
        async with nc.subscribe("a") as messages:
            await nc.flush()
            await voice.send(f"-ERR '{text}'\r\nMSG a {messages.sid} 1\r\nx\r\n".encode())
            with anyio.fail_after(LIMIT):
                assert (await messages.receive()).data == b"x"

        assert listener.errors == [text]
        assert not listener.downs


async def test_an_error_before_the_socket_closes_is_why_the_link_broke() -> None:
    async with connected_to_peer() as (nc, voice, listener):
        await voice.close_with(b"-ERR 'User Authentication Expired'\r\n")
        await until(lambda: nc.connected and nc.reconnects)
        assert listener.errors == ["User Authentication Expired"]
        assert listener.downs == ["closed by the server: User Authentication Expired"]


async def test_a_subject_with_quotes_in_an_error_is_understood() -> None:
    failed: list[Exception] = []
    async with connected_to_peer() as (nc, voice, _):
        nc.lowlevel.subscribe_nowait('say "hi".\\now', lambda message: None, on_error=failed.append)
        await voice.send(b'-ERR \'Permissions Violation for Subscription to "say \\"hi\\".\\\\now"\'\r\n')
        await until(lambda: failed)
        assert isinstance(failed[0], PermissionDenied)


async def test_a_publish_refused_for_its_reply_subject_fails_that_request_alone() -> None:
    replies: list[object] = []
    async with connected_to_peer() as (nc, voice, _):
        reply = nc.lowlevel.request_nowait("a", b"", replies.append)
        nc.lowlevel.request_nowait(
            "a", b"", lambda reply: pytest.fail(f"got {reply}") if nc.connected else None
        )
        await voice.send(f"-ERR 'Permissions Violation for Publish with Reply of \"{reply}\"'\r\n".encode())
        await until(lambda: replies)
        assert isinstance(replies[0], PermissionDenied)
        assert len(nc.lowlevel.requests) == 1


async def test_a_server_that_is_verbose_all_the_same_is_understood() -> None:
    async with connected_to_peer() as (nc, voice, listener):
        await voice.send(b"+OK\r\n+OK\r\n")
        await nc.flush()
        assert not listener.downs


async def test_the_limit_for_payloads_follows_the_server() -> None:
    async with connected_to_peer() as (nc, voice, _):
        await nc.publish("a", bytes(100))
        await voice.send(b'INFO {"max_payload":99}\r\n')
        await until(lambda: nc.max_payload == 99)
        with pytest.raises(PayloadTooLarge, match="99"):
            await nc.publish("a", bytes(100))

        await voice.send(b'INFO {"max_payload":"many"}\r\n')
        await until(lambda: nc.max_payload == 1024 * 1024)
        await voice.send(b'INFO {"max_payload":200}\r\n')
        await until(lambda: nc.max_payload == 200)
        await nc.publish("a", bytes(100))


async def test_a_pong_that_nobody_asked_for_is_passed_over() -> None:
    async with connected_to_peer() as (nc, voice, listener):
        await nc.flush()
        await voice.send(b"PONG\r\n" * 5)
        await nc.flush()
        assert not listener.downs


async def test_a_ping_is_answered_before_what_is_queued() -> None:
    received = bytearray()

    async def script(stream: SocketStream) -> None:
        await stream.send(INFO)
        # Those of the greeting, of the inbox, and of the flush.
        pings = 0
        while pings < 3:
            count = (await receive_until(stream, b"PING\r\n")).count(b"PING\r\n")
            await stream.send(b"PONG\r\n" * count)
            pings += count

        await go.wait()
        await stream.send(b"PING\r\n")
        while b"PONG\r\n" not in received[-70_000:]:
            received.extend(await stream.receive())

    go = anyio.Event()
    async with (
        scripted_peer(script) as peer,
        connect(peer.url, **quick(pending_size=10**9, drain_timeout=0.2)) as nc,
    ):
        await nc.flush()
        link = nc.lowlevel.link
        assert link is not None
        # More than the sockets hold, so that a send is under way while the PING comes.
        for _ in range(16):
            nc.lowlevel.publish_nowait("a", "", b"", bytes(1024 * 1024))

        await until(lambda: link._outbox.sending)
        for _ in range(16):
            nc.lowlevel.publish_nowait("b", "", b"", bytes(1024 * 1024))

        go.set()
        await until(lambda: b"PONG\r\n" in received[-70_000:])
        assert b"PUB b" not in received[: received.index(b"PONG\r\n")]


@given(st.text() | st.sampled_from(["Permissions Violation for ", "invalid subject "]).flatmap(_followed))
def test_any_text_is_parsed_and_made_readable(text: str) -> None:
    error = parse_server_error(text)
    assert isinstance(error.subject + error.queue, str)
    assert len(readable(text)) <= 1001
    assert readable(text).isprintable()


def test_quotes_without_end_do_not_hold_the_loop() -> None:
    begin = time.perf_counter()
    parse_server_error("Permissions Violation for Publish to " + '"\\"' * 20_000)
    assert time.perf_counter() - begin < 5
