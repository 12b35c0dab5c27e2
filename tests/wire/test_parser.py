"""Bytes to frames: the same ones however the bytes were cut, and an error for what is no protocol."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nats_jobs.errors import ProtocolError
from nats_jobs.wire import Msg, Parser
from nats_jobs.wire._parser import Err, Frame, Info, Ok, Ping, Pong

KIB = 1024

subjects = st.text("abcXYZ0189_$-é", min_size=1, max_size=12)
payloads = st.binary(max_size=60) | st.sampled_from([b"\r\n", b"PING\r\n", b"MSG a 1 5\r\n", b"\r\n\r\n"])
blocks = st.binary(max_size=20).map(lambda rest: b"NATS/1.0\r\n" + rest)
blanks = st.sampled_from([b" ", b"  ", b"\t", b" \t "])


def written(frame: Frame, blank: bytes = b" ") -> bytes:
    """Write a frame as a server does."""
    match frame:
        case Msg():
            block = frame._block
            sizes = [len(block)] if block else []
            words = [b"HMSG" if block else b"MSG", frame.subject.encode(), b"%d" % frame.sid]
            words += [frame.reply.encode()] if frame.reply else []
            words += [b"%d" % size for size in [*sizes, len(block) + len(frame.data)]]
            return blank.join(words) + b"\r\n" + block + frame.data + b"\r\n"
        case Info(fields):
            return b"INFO " + json.dumps(fields).encode() + b" \r\n"
        case Err(text):
            return f"-ERR '{text}'\r\n".encode()
        case Ping():
            return b"PING\r\n"
        case Pong():
            return b"PONG\r\n"
        case _:
            return b"+OK\r\n"


def seen(frame: Frame) -> Any:
    """What of a frame can be compared."""
    if isinstance(frame, Msg):
        return frame.subject, frame.sid, frame.reply, frame._block, frame.data

    return frame


def fed(chunks: list[bytes]) -> list[Any]:
    parser = Parser()
    return [seen(frame) for chunk in chunks for frame in parser.feed(chunk)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


messages = st.builds(
    Msg,
    subjects,
    st.integers(1, 10**12),
    st.just("") | subjects,
    st.just(b"") | blocks,
    payloads,
)
info = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3).map(Info)
errors = st.sampled_from(["Stale Connection", 'Permissions Violation for Publish to "x"', ""]).map(Err)
frames = st.lists(messages | info | errors | st.sampled_from([Ping(), Pong(), Ok()]), max_size=6)


@given(frames, st.lists(st.integers(0, 10**6), max_size=8), blanks)
def test_every_cut_of_the_input_gives_the_same_frames(
    sent: list[Frame], places: list[int], blank: bytes
) -> None:
    data = b"".join(written(frame, blank) for frame in sent)
    assert fed(cut(data, places)) == [seen(frame) for frame in sent]


def test_a_cut_at_each_single_place_gives_the_same_frames() -> None:
    sent: list[Frame] = [
        Info({"a": 1}),
        Msg("a.b", 7, "", b"", b""),
        Msg("a.b", 7, "r", b"NATS/1.0 503\r\n\r\n", b""),
        Pong(),
        Msg("ü", 7, "r", b"NATS/1.0\r\nA: b\r\n\r\n", b"\r\n"),
        Err("Stale Connection"),
        Ping(),
    ]
    data = b"".join(map(written, sent))
    for place in range(len(data) + 1):
        assert fed([data[:place], data[place:]]) == [seen(frame) for frame in sent]

    assert fed([data[place : place + 1] for place in range(len(data))]) == [seen(frame) for frame in sent]


@given(st.lists(st.binary(max_size=80), max_size=10))
def test_garbage_gives_frames_or_a_protocol_error_and_nothing_else(chunks: list[bytes]) -> None:
    parser = Parser()
    try:
        for chunk in chunks:
            list(parser.feed(chunk))
    except ProtocolError:
        # It stays so: what follows could be anything.
        with pytest.raises(ProtocolError):
            list(parser.feed(b"PING\r\n"))


lines = st.lists(
    st.sampled_from(
        [
            b"MSG",
            b"HMSG",
            b"msg",
            b"INFO",
            b"-ERR",
            b"+OK",
            b"PING",
            b"a",
            b"1",
            b"0",
            b"-1",
            b"+3",
            b"99",
            b"1_0",
            b"{}",
            b"[]",
            b"{",
            b"[" * 3000,
            b"\xff",
            b"\xb2",
            b"9" * 30,
            b"1" * 5000,
            b"\x00",
        ]
    ),
    max_size=7,
).map(b" ".join)


@given(st.lists(lines, max_size=5), st.lists(st.integers(0, 10**6), max_size=4))
def test_near_misses_give_frames_or_a_protocol_error_and_nothing_else(
    near: list[bytes], places: list[int]
) -> None:
    try:
        fed(cut(b"".join(line + b"\r\n" for line in near), places))
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"HELLO\r\n", "unknown operation"),
        (b"\r\n", "empty control line"),
        (b"MSG a 1\r\n", "3 fields"),
        (b"MSG a 1 r x 5\r\n", "6 fields"),
        (b"MSG a b 1\r\nx\r\n", "not a number"),
        (b"MSG a 1 -5\r\n", "not a number"),
        (b"MSG a 1 1e3\r\n", "not a number"),
        (b"MSG a 1 99999999999\r\n", "a length of"),
        (b"MSG a 1 %d\r\n" % (65 * KIB * KIB + 1), "a length of"),
        (b"MSG a 1 %b\r\n" % (b"1" * 5000), "not a number"),
        (b"MSG a %b 0\r\n\r\n" % (b"1" * 5000), "not a number"),
        (b"HMSG a 1 12 5\r\n", "a header of 12 bytes in a message of 5"),
        (b"MSG a 1 2\r\nabcd\r\n", "does not end where it says"),
        (b"INFO nonsense\r\n", "not JSON"),
        (b"INFO [1]\r\n", "not a JSON object"),
        (b"INFO " + b"[" * 60_000 + b"\r\n", "not JSON"),
    ],
)
def test_what_is_no_protocol_is_said_in_words(line: bytes, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        fed([line])


def test_operations_may_be_written_in_any_case() -> None:
    assert fed([b"ping\r\nPong\r\nmsg a 1 1\r\nx\r\ninfo {}\r\n-err 'x'\r\n+ok\r\n"]) == [
        Ping(),
        Pong(),
        ("a", 1, "", b"", b"x"),
        Info({}),
        Err("x"),
        Ok(),
    ]


def test_an_info_of_many_servers_is_read() -> None:
    urls = [f"host-{number}.example:4222" for number in range(2000)]
    assert fed([written(Info({"connect_urls": urls}))]) == [Info({"connect_urls": urls})]


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_an_endless_control_line_ends_with_an_error(size: int) -> None:
    parser = Parser()
    fed_bytes = 0
    with pytest.raises(ProtocolError, match="control line"):
        while fed_bytes < 1024 * KIB:
            fed_bytes += size
            list(parser.feed(b"x" * size))

    assert fed_bytes < 80 * KIB


def test_what_is_kept_is_no_more_than_the_message_under_way() -> None:
    parser = Parser()
    for _ in range(20):
        list(parser.feed(b"MSG a 1 100000\r\n" + bytes(50_000)))
        list(parser.feed(bytes(50_000) + b"\r\nMSG a 1 3\r\n"))
        assert len(parser._kept) < 100
        list(parser.feed(b"abc\r\n"))
        assert parser.idle


def test_a_message_that_comes_byte_by_byte_takes_no_more_memory_than_its_bytes() -> None:
    parser = Parser()
    list(parser.feed(b"MSG a 1 1000000\r\n"))
    for _ in range(100_000):
        list(parser.feed(b"ab"))

    assert sys.getsizeof(parser._kept) < 400_000


def test_numbers_that_are_new_each_time_do_not_fill_the_memory() -> None:
    parser = Parser()
    for number in range(5000):
        assert [seen(frame) for frame in parser.feed(b"MSG a %d 0\r\n\r\n" % number)] == [
            ("a", number, "", b"", b"")
        ]

    assert len(parser._numbers) <= 1024


def test_the_payload_is_not_looked_at() -> None:
    data = b"\r\nMSG a 1 5\r\n-ERR 'x'\r\n" * 3
    assert fed([b"MSG a 1 %d\r\n%b\r\nPING\r\n" % (len(data), data)]) == [("a", 1, "", b"", data), Ping()]
