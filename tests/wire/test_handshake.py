"""Peers that greet slowly, wrongly or never: each is a clear failure, and no socket stays open."""

from __future__ import annotations

import json
from typing import Any, Unpack

import anyio
import pytest
from anyio.abc import SocketStream

from nats_jobs import __version__
from nats_jobs.errors import AuthorizationFailed, ConnectFailed
from nats_jobs.wire import ConnectOptions, connect
from support.connections import LIMIT, quick
from support.peer import INFO, Script, receive_until, scripted_peer

pytestmark = pytest.mark.anyio


async def failure(script: Script, **options: Unpack[ConnectOptions]) -> str:
    """Return why the connect failed. The peer must have seen the end of the socket."""
    async with scripted_peer(script) as peer:
        with anyio.fail_after(2 * LIMIT), pytest.raises(ConnectFailed) as caught:
            async with connect(peer.url, **quick(**options)):
                pass

        await peer.wait_all_gone()

    ((server, reason),) = caught.value.reasons
    assert server == peer.url
    return reason


def sends(*pieces: bytes, closes: bool = False) -> Script:
    async def script(stream: SocketStream) -> None:
        for piece in pieces:
            await stream.send(piece)

        if closes:
            await stream.aclose()

    return script


def answers(answer: bytes, *, closes: bool = False) -> Script:
    """A peer that gives `answer` when we have sent CONNECT and PING."""

    async def script(stream: SocketStream) -> None:
        await stream.send(INFO)
        await receive_until(stream, b"PING\r\n")
        await stream.send(answer)
        if closes:
            await stream.aclose()

    return script


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (sends(b"\x16\x03\x01\x00\x05garbage\r\n"), "it does not begin with INFO"),
        (sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "is it a NATS server?"),
        (sends(b"INFO {nope\r\n"), "INFO is malformed: not JSON"),
        (sends(b"INFO [1, 2]\r\n"), "INFO is not a JSON object"),
        (sends(b"INFO " + b"[" * 60_000 + b"\r\n"), "INFO is malformed: not JSON"),
        (sends(b"INFO \xff\xfe\r\n"), "INFO is malformed: not JSON"),
        (sends(b"\r\n"), "it does not begin with INFO"),
        (sends(b"PING\r\n"), "it begins with Ping, not with INFO"),
        (sends(b"MSG a 1 2\r\nxx\r\n"), "it begins with Msg, not with INFO"),
        (sends(b"-ERR 'maximum connections exceeded'\r\n"), "maximum connections exceeded"),
        (sends(*[b"x" * 60_000] * 3), "a control line of more than"),
        (sends(closes=True), "closed by the server before its INFO"),
        (sends(INFO[:20], closes=True), "closed by the server before its INFO"),
        (answers(b"", closes=True), "closed by the server before its PONG"),
        (answers(b"PON", closes=True), "closed by the server before its PONG"),
        (answers(b"PONK\r\n"), "unknown operation"),
        (
            answers(b"-ERR 'no responders requires headers support'\r\n"),
            "no responders requires headers support",
        ),
        (answers(b"-ERR 'Authentication Timeout'\r\n", closes=True), "Authentication Timeout"),
        (answers(b"INFO {nope\r\n"), "INFO is malformed: not JSON"),
    ],
)
async def test_a_wrong_greeting_is_a_failure_in_words(script: Script, reason: str) -> None:
    assert reason in await failure(script)


@pytest.mark.parametrize(
    ("script", "awaited"),
    [
        (sends(), "INFO"),
        (sends(INFO[:20]), "INFO"),
        (sends(INFO), "PONG"),
        (answers(b"PING\r\n"), "PONG"),
        (answers(b"+OK\r\n" + INFO), "PONG"),
    ],
)
async def test_a_greeting_that_does_not_come_ends_with_connect_timeout(script: Script, awaited: str) -> None:
    reason = await failure(script, connect_timeout=0.3)
    assert reason.startswith(f"no {awaited}")
    assert reason.endswith("within 0.3 s")


async def test_a_refusal_of_who_we_are_is_an_authorization_failure() -> None:
    for text in ("Authorization Violation", "User Authentication Expired", "Account Authentication Expired"):
        async with scripted_peer(answers(f"-ERR '{text}'\r\n".encode(), closes=True)) as peer:
            with pytest.raises(AuthorizationFailed, match=text):
                async with connect(peer.url, **quick()):
                    pass


async def test_what_comes_with_the_pong_is_not_lost() -> None:
    more = b'PING\r\nPONG\r\nINFO {"connect_info":true,"max_payload":77}\r\nPING\r\n'
    answered = anyio.Event()

    async def script(stream: SocketStream) -> None:
        await stream.send(INFO)
        await receive_until(stream, b"PING\r\n")
        await stream.send(more)
        # One of them before the connection stands, one after.
        received = b""
        while received.count(b"PONG\r\n") < 2:
            received += await stream.receive()

        answered.set()

    async with scripted_peer(script) as peer, connect(peer.url, **quick(drain_timeout=0.1)) as nc:
        with anyio.fail_after(LIMIT):
            await answered.wait()

        assert nc.max_payload == 77
        assert nc.server_info["server_id"] == "scripted"


async def test_a_greeting_may_come_byte_by_byte() -> None:
    async def script(stream: SocketStream) -> None:
        for byte in INFO:
            await stream.send(bytes([byte]))

        await receive_until(stream, b"PING\r\n")
        for byte in b"INFO {}\r\nPING\r\nPONG\r\n":
            await stream.send(bytes([byte]))

    async with scripted_peer(script) as peer, connect(peer.url, **quick(drain_timeout=0.1)) as nc:
        assert nc.connected


async def introduction(info: bytes = INFO, **options: Unpack[ConnectOptions]) -> dict[str, Any]:
    """Return what CONNECT says."""
    said: list[bytes] = []

    async def script(stream: SocketStream) -> None:
        await stream.send(info)
        said.append(await receive_until(stream, b"PING\r\n"))
        await stream.send(b"PONG\r\n")

    async with (
        scripted_peer(script) as peer,
        connect(peer.url, **quick(**(ConnectOptions(drain_timeout=0.1) | options))),
    ):
        verb, _, rest = said[0].partition(b" ")
        assert verb == b"CONNECT"
        fields: dict[str, Any] = json.loads(rest.partition(b"\r\n")[0])
        return fields


async def test_connect_says_all_that_the_server_would_otherwise_take_for_granted() -> None:
    assert await introduction(name="worker") == {
        "verbose": False,
        "pedantic": False,
        "echo": True,
        "tls_required": False,
        "name": "worker",
        "lang": "python-anyio",
        "version": __version__,
        "protocol": 1,
        "headers": True,
        "no_responders": True,
    }


async def test_headers_are_not_promised_to_a_server_that_has_none() -> None:
    fields = await introduction(INFO.replace(b'"headers":true', b'"headers":false'), no_echo=True)
    assert (fields["headers"], fields["no_responders"], fields["echo"]) == (False, False, False)


@pytest.mark.parametrize("state", ["before INFO", "inside INFO", "before PONG", "after a PING"])
async def test_cancelling_in_any_state_leaves_no_socket(state: str) -> None:
    reached = anyio.Event()

    async def script(stream: SocketStream) -> None:
        if state == "inside INFO":
            await stream.send(INFO[:20])
        elif state != "before INFO":
            await stream.send(INFO)
            await receive_until(stream, b"PING\r\n")

        if state == "after a PING":
            await stream.send(b"PING\r\n")
            await receive_until(stream, b"PONG\r\n")

        reached.set()

    async with scripted_peer(script) as peer, anyio.create_task_group() as tasks:
        tasks.start_soon(connect_for_ever, peer.url)
        with anyio.fail_after(LIMIT):
            await reached.wait()

        tasks.cancel_scope.cancel("the test asks for it")
        with anyio.CancelScope(shield=True):
            await peer.wait_all_gone()


async def test_cancelling_between_two_servers_leaves_no_socket() -> None:
    """At the reconnect: the first is gone, the second never greets."""
    reached = anyio.Event()

    async def good(stream: SocketStream) -> None:
        await stream.send(INFO)
        await receive_until(stream, b"PING\r\n")
        await stream.send(b"PONG\r\n")
        await stream.aclose()

    async def silent(stream: SocketStream) -> None:
        reached.set()

    async with scripted_peer(good) as first, scripted_peer(silent) as second:
        async with connect([first.url, second.url], dont_randomize=True, connect_timeout=600):
            with anyio.fail_after(LIMIT):
                await reached.wait()

        await second.wait_all_gone()


async def connect_for_ever(url: str) -> None:
    async with connect(url, connect_timeout=600):
        raise AssertionError("it cannot be connected")
