"""INFO is JSON that a stranger wrote: however deep, long or many, it takes little memory and ends nothing but the link."""

from __future__ import annotations

import tracemalloc
from itertools import count
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

from nats_jobs.errors import PayloadTooLarge, ProtocolError
from nats_jobs.wire import Parser, connect
from nats_jobs.wire._info import limit_in, updated
from support.connections import LIMIT, RecordingListener, quick, until
from support.peer import INFO, receive_until, scripted_peer

LINE = 64 * 1024
MIB = 1024 * 1024
NESTS = [(b"[", b"]"), (b'{"a":', b"}")]


def info(value: bytes) -> bytes:
    return b'INFO {"nonce":%b}\r\n' % value


def nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    return info(opening * depth + b"1" + closing * depth)


def refusal(line: bytes) -> str:
    """Return why `line` is refused; nothing when it is read."""
    try:
        list(Parser().feed(line))
    except ProtocolError as error:
        return str(error)

    return ""


@pytest.mark.parametrize(("opening", "closing"), NESTS)
def test_nesting_of_any_depth_is_read_or_refused_in_words(opening: bytes, closing: bytes) -> None:
    depths = [*range(1, 100), *range(900, 1100), *range(1100, 30_000, 299)]
    refusals = {refusal(nested(depth, opening, closing)) for depth in depths}
    assert all(text == "" or "INFO is malformed: " in text for text in refusals)
    assert len(refusals) > 1


@pytest.mark.parametrize(
    "value",
    [
        b"[" + b"[]," * (LINE // 3 - 20) + b"1]",
        b"[" + b"{}," * (LINE // 3 - 20) + b"1]",
        b"[" + b"1.5," * (LINE // 4 - 20) + b"1]",
        b'"' + b"\\ud83d\\ude00" * (LINE // 12 - 20) + b'"',
        b"{%b}" % b",".join(b'"%x":0' % number for number in range(7000)),
    ],
    ids=["lists", "objects", "numbers", "escapes", "names"],
)
def test_one_line_takes_no_more_than_some_mebibytes(value: bytes) -> None:
    line = info(value)
    assert len(line) <= LINE + 16
    tracemalloc.start()
    try:
        frames = list(Parser().feed(line))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(frames) == 1
    assert most < 4 * MIB


@pytest.mark.parametrize("value", [b"9" * 60_000, b"-" * 60_000, b"1e999999999", b'"' + b"x" * 60_000])
def test_a_number_or_text_without_end_is_read_or_refused(value: bytes) -> None:
    assert len(refusal(info(value))) < 1000


def test_what_is_said_later_adds_to_what_was_said_before() -> None:
    assert updated({"version": "2.11.0", "ldm": False}, {"ldm": True}) == {"version": "2.11.0", "ldm": True}


def test_names_that_are_new_each_time_do_not_fill_the_memory() -> None:
    known: dict[str, Any] = {}
    for number in range(1000):
        known = updated(known, {f"{number}.{field}": field for field in range(30)})

    assert len(known) < 200


@pytest.mark.parametrize("limit", [None, True, 0, -1, "1", 1.5, float("inf"), [], {}])
def test_what_is_no_limit_for_payloads_is_passed_over(limit: object) -> None:
    assert limit_in({"max_payload": limit}) == MIB


@pytest.mark.anyio
async def test_a_greeting_with_odd_values_is_taken() -> None:
    async def script(stream: SocketStream) -> None:
        await stream.send(nested(30, b"[", b"]"))
        await receive_until(stream, b"PING\r\n")
        await stream.send(nested(30, b'{"a":', b"}") + INFO + b"PONG\r\n")

    async with scripted_peer(script) as peer, connect(peer.url, **quick(drain_timeout=0.1)) as nc:
        assert nc.server_info["server_id"] == "scripted"


@pytest.mark.anyio
async def test_a_server_that_talks_of_itself_for_ever_costs_no_memory() -> None:
    """Megabytes of INFO, each with new names and addresses; then one that nobody can read, and a good server."""
    numbers = count()

    async def script(stream: SocketStream) -> None:
        await stream.send(INFO)
        await receive_until(stream, b"PING\r\n")
        await stream.send(b"PONG\r\n")
        if peer.clients == 1:
            for number in range(30):
                # Nobody listens there.
                addresses = b",".join(b'"127.1.%d.%d:1"' % (number, each) for each in range(100))
                names = b",".join(b'"%x":[[],[],[]]' % next(numbers) for _ in range(2000))
                await stream.send(b'INFO {"connect_urls":[%b],%b}\r\n' % (addresses, names))

            await stream.send(b"INFO " + b"[" * 60_000 + b"\r\n")

        while True:
            received = await receive_until(stream, b"PING\r\n")
            await stream.send(b"PONG\r\n" * received.count(b"PING\r\n"))

    listener = RecordingListener()
    async with scripted_peer(script) as peer:
        options = quick(drain_timeout=0.1)
        async with connect(peer.url, listener=listener, **options) as nc:
            await until(lambda: listener.downs)
            assert "protocol error: INFO is malformed: not JSON" in listener.downs[0]
            assert len(nc.server_info) < 2100
            assert len(nc.lowlevel.pool) <= 101
            with anyio.fail_after(LIMIT):
                await nc.wait_connected()


@pytest.mark.anyio
async def test_the_limit_that_was_said_last_is_obeyed_until_another_is_said_or_another_server_says_none() -> (
    None
):
    more = anyio.Event()

    async def script(stream: SocketStream) -> None:
        limit = b',"max_payload":20' if peer.clients == 1 else b""
        await stream.send(b'INFO {"headers":true,"proto":1%b}\r\n' % limit)
        await receive_until(stream, b"PING\r\n")
        await stream.send(b"PONG\r\n")
        if peer.clients > 1:
            await stream.send(b'INFO {"said":"again"}\r\n')
            return

        await more.wait()
        await stream.send(b'INFO {"max_payload":10}\r\n')
        await stream.send(b'INFO {"said":"nothing"}\r\n')
        await receive_until(stream, b"0123456789\r\n")
        await anyio.aclose_forcefully(stream)

    async with scripted_peer(script) as peer, connect(peer.url, **quick(drain_timeout=0.1)) as nc:
        await nc.publish("a", bytes(20))
        with pytest.raises(PayloadTooLarge, match="20"):
            await nc.publish("a", bytes(21))

        more.set()
        await until(lambda: "said" in nc.server_info)
        assert nc.max_payload == 10
        for use in (nc.publish, nc.request):
            with pytest.raises(PayloadTooLarge, match="10"):
                await use("a", bytes(11))

        await nc.publish("a", b"0123456789")
        await until(lambda: nc.server_info.get("said") == "again")
        assert nc.max_payload == MIB
        await nc.publish("a", bytes(21))
