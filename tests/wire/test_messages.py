"""Messages and their headers: what one side writes the other reads, and nothing that was sent can break the reading."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from nats_jobs.errors import BadSubject, ConnectionClosed
from nats_jobs.wire import Headers, Msg, encode_headers, parse_headers

pytestmark = pytest.mark.anyio

names = st.text("abcXYZ-_!#$%&'*+.^`|~019", min_size=1, max_size=10)
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20).map(str.strip)


@given(st.dictionaries(names, values | st.lists(values, min_size=1, max_size=3), max_size=5))
def test_what_is_written_is_read(given_headers: dict[str, str | list[str]]) -> None:
    headers = parse_headers(encode_headers(given_headers))
    for name, value in given_headers.items():
        assert headers.get_all(name) == ([value] if isinstance(value, str) else value)

    assert set(headers) == set(given_headers)


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda rest: b"NATS/1.0" + rest))
def test_no_block_can_break_the_reading(block: bytes) -> None:
    message = Msg("s", 1, "", block, b"")
    assert all(message.headers.get_all(name) for name in message.headers)
    assert message.status is None or 0 <= message.status <= 999
    assert repr(message)


@given(st.text("\r\n ab", max_size=20))
def test_a_line_break_in_a_value_cannot_start_another_header(value: str) -> None:
    block = encode_headers({"Name": value, "Last": "x"})
    assert block.count(b"\r\n") == 4
    assert set(parse_headers(block)) == {"Name", "Last"}


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ü", "a\r\nb", "a\x00"])
def test_a_name_that_no_header_can_have_is_refused(name: str) -> None:
    with pytest.raises(BadSubject, match="header name"):
        encode_headers({name: "x"})


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(BadSubject, match="surrogate"):
        encode_headers({"a": "\ud800"})


def test_bytes_that_are_no_utf8_do_not_make_the_headers_vanish() -> None:
    headers = parse_headers(b"NATS/1.0\r\nA: caf\xe9\r\nB: caf\xc3\xa9\r\n\r\n")
    assert headers["A"].encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert headers["B"] == "café"


def test_a_header_may_stand_more_than_once_and_keeps_its_case() -> None:
    headers = parse_headers(b"NATS/1.0\r\nKey: 1\r\nkey: 2\r\nKey: 3\r\n\r\n")
    assert headers["Key"] == "1"
    assert headers.get_all("Key") == ["1", "3"]
    assert headers.get_all("key") == ["2"]
    assert headers.get_all("absent") == []
    assert "KEY" not in headers


@pytest.mark.parametrize(
    ("block", "status", "items"),
    [
        (b"NATS/1.0 503\r\n\r\n", 503, {"Status": "503"}),
        (b"NATS/1.0 404 No Messages\r\n\r\n", 404, {"Status": "404", "Description": "No Messages"}),
        (b"NATS/1.0 503\r\nNats-Subject: a.b\r\n\r\n", 503, {"Status": "503", "Nats-Subject": "a.b"}),
        (b"NATS/1.0\r\nA: 1\r\n\r\n", None, {"A": "1"}),
        (b"FOO/1.0 503\r\nA: 1\r\n\r\n", 503, {}),
        (b"", None, {}),
    ],
)
def test_the_status_line_is_read(block: bytes, status: int | None, items: dict[str, str]) -> None:
    message = Msg("s", 1, "", block, b"")
    assert dict(message.headers) == items
    assert message.status == (status if block.startswith(b"NATS/1.0") or not block else message.status)


def test_a_block_that_was_written_before_is_taken_as_it_is() -> None:
    block = encode_headers({"A": "1"})
    assert encode_headers(block) is block


async def test_a_message_without_reply_subject_cannot_be_answered() -> None:
    with pytest.raises(BadSubject, match="expects no answer"):
        await Msg("s", 1, "", b"", b"").respond(b"x")


async def test_a_message_of_no_connection_cannot_be_answered() -> None:
    with pytest.raises(ConnectionClosed):
        await Msg("s", 1, "r", b"", b"").respond(b"x")


def test_headers_are_read_only_and_show_themselves() -> None:
    headers = Headers({"A": ["1", "2"]})
    assert not hasattr(headers, "__setitem__")
    assert repr(headers) == "Headers({'A': ['1', '2']})"
    headers.get_all("A").append("3")
    assert headers.get_all("A") == ["1", "2"]
