"""The codec for a content type, and what all codecs have in common."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, strategies as st

from nats_jobs import codecs
from nats_jobs.codecs import JSON, MSGPACK, RAW, TEXT, Codec, by_content_type

ALL = {"MSGPACK": MSGPACK, "JSON": JSON, "TEXT": TEXT, "RAW": RAW}


@pytest.mark.parametrize("codec", ALL.values(), ids=lambda value: type(value).__name__)
def test_a_codec_is_found_by_the_content_type_it_sends(codec: Codec) -> None:
    assert by_content_type(codec.content_type) is codec


@pytest.mark.parametrize(
    ("content_type", "codec"),
    [
        ("application/json; charset=utf-8", JSON),
        ("APPLICATION/JSON", JSON),
        ("  application/json ;x=y", JSON),
        ("application/ld+json", JSON),
        ("application/vnd.api+json; version=1", JSON),
        ("application/x-msgpack", MSGPACK),
        ("application/vnd.msgpack", MSGPACK),
        ("Application/MsgPack; v=1", MSGPACK),
        ("application/vnd.acme.order+msgpack", MSGPACK),
        ("text/plain", TEXT),
        ("text/csv", TEXT),
        ('Text/HTML; Charset="UTF-8"; x=y', TEXT),
        ("text/plain;charset=us-ascii", TEXT),
        ("text/plain; charset=iso-8859-1", None),
        ("text/plain; charset=utf-16", None),
        ("application/octet-stream", RAW),
        ("application/octet-stream; type=x", RAW),
        ("application/xml", None),
        ("application/x-protobuf", None),
        ("image/png", None),
        ("json", None),
        ("+json", None),
        ("text/", None),
        ("text", None),
        ("", None),
        (";", None),
        (None, None),
    ],
)
def test_a_content_type_is_read_without_case_and_parameters(
    content_type: str | None, codec: Codec | None
) -> None:
    assert by_content_type(content_type) is codec


@given(st.text() | st.text(alphabet="aplicton/jsmgk;=+- "))
def test_any_text_may_be_a_content_type(content_type: str) -> None:
    assert by_content_type(content_type) in {None, *ALL.values()}


@pytest.mark.parametrize(("name", "codec"), ALL.items())
def test_a_codec_shows_where_it_is_found(name: str, codec: Codec) -> None:
    assert repr(codec) == f"codecs.{name}"
    assert getattr(codecs, name) is codec


@pytest.mark.parametrize("codec", ALL.values(), ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_codec_is_the_same_one_after_pickling(codec: Codec, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(codec, protocol)) is codec


@pytest.mark.parametrize("codec", ALL.values(), ids=lambda value: type(value).__name__)
def test_a_codec_is_the_same_one_after_copying(codec: Codec) -> None:
    assert copy.copy(codec) is codec
    assert copy.deepcopy({"codec": codec})["codec"] is codec


class Shouting:
    """A codec as a user may write it."""

    name = "shouting"
    content_type = "text/x-loud"

    def encode(self, value: object) -> bytes:
        return str(value).upper().encode()

    def decode(self, data: bytes) -> str:
        return data.decode()


def test_any_object_of_that_shape_is_a_codec() -> None:
    codec: Codec = Shouting()

    assert isinstance(codec, Codec)
    assert isinstance(MSGPACK, Codec)
    assert not isinstance("msgpack", Codec)
