"""TEXT and RAW."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies as st

from nats_jobs.codecs import RAW, TEXT
from nats_jobs.errors import DecodeError, EncodeError


@given(st.text())
def test_text_survives_the_round_trip(text: str) -> None:
    assert TEXT.decode(TEXT.encode(text)) == text


@pytest.mark.parametrize(
    ("value", "said"),
    [(b"ab", "not bytes"), (1, "not int"), (None, "not NoneType"), ("\ud800", "surrogate")],
    ids=lambda value: type(value).__name__,
)
def test_only_text_is_text(value: object, said: str) -> None:
    with pytest.raises(EncodeError, match=said):
        TEXT.encode(value)


@given(st.binary())
def test_any_bytes_are_text_or_raise_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert TEXT.decode(data).encode() == data


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(DecodeError, match="utf-8") as caught:
        TEXT.decode(b"ab\xff")

    assert caught.value.codec == "text"


@given(st.binary())
def test_raw_bytes_are_left_alone(data: bytes) -> None:
    assert RAW.encode(data) is data
    assert RAW.decode(data) is data


@pytest.mark.parametrize(
    "value",
    [bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"a-b-c-d-")[::2]],
    ids=lambda value: type(value).__name__,
)
def test_what_is_like_bytes_is_sent_as_bytes(value: object) -> None:
    sent = RAW.encode(value)

    assert sent == b"abcd"
    assert type(sent) is bytes


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("ab", "encode it, or use TEXT"),
        (1, "not int; use MSGPACK or JSON"),
        (None, "not NoneType"),
        ([1], "not list"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_raw_refuses_values(value: object, said: str) -> None:
    with pytest.raises(EncodeError, match=said):
        RAW.encode(value)


def test_a_view_that_was_released_is_refused() -> None:
    view = memoryview(b"ab")
    view.release()

    with pytest.raises(EncodeError):
        RAW.encode(view)
