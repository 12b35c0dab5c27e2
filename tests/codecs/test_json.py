"""JSON: round trips, strictness both ways, and bytes that mean harm."""

from __future__ import annotations

import contextlib
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from nats_jobs.codecs import JSON
from nats_jobs.errors import DecodeError, EncodeError

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(values)
def test_a_value_survives_the_round_trip(value: object) -> None:
    assert JSON.decode(JSON.encode(value)) == value


def test_it_is_compact_and_utf8() -> None:
    assert JSON.encode({"größe": [1, "é"]}) == '{"größe":[1,"é"]}'.encode()


def test_keys_become_strings_and_tuples_lists() -> None:
    assert JSON.decode(JSON.encode({1: (2, 3)})) == {"1": [2, 3]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "not JSON compliant"),
        ([float("inf")], "not JSON compliant"),
        ({float("nan"): 1}, "not JSON compliant"),
        (datetime(2024, 5, 6, tzinfo=UTC), "use MSGPACK, or send isoformat()"),
        (datetime(2024, 5, 6), "use MSGPACK, or send isoformat()"),
        (date(2024, 5, 6), "date is not supported; send isoformat()"),
        (Decimal("1.1"), "Decimal is not supported; send str() of it"),
        (uuid.UUID(int=1), "UUID is not supported"),
        ({1}, "set is not supported; send list() of it"),
        (b"ab", "use MSGPACK or RAW"),
        ("\ud800", "surrogate"),
        ({(1, 2): 3}, "keys must be"),
        (10**5000, "4300"),
    ],
    ids=lambda value: repr(value)[:30] if not (isinstance(value, int) and value > 10**9) else "huge",
)
def test_a_value_without_a_form_is_refused_with_advice(value: object, said: str) -> None:
    with pytest.raises(EncodeError) as caught:
        JSON.encode(value)

    assert caught.value.codec == "json"
    assert said in str(caught.value)


def test_a_value_that_holds_itself_is_refused() -> None:
    knot: list[object] = []
    knot.append(knot)

    with pytest.raises(EncodeError, match="Circular"):
        JSON.encode(knot)


def test_a_value_that_is_nested_too_deeply_is_refused() -> None:
    deep: list[object] = []
    for _ in range(200_000):
        deep = [deep]

    with pytest.raises(EncodeError, match="nested too deeply"):
        JSON.encode(deep)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_decode_or_raise_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        JSON.decode(data)


@given(st.text(alphabet='[]{},:"\\0123456789.eE+-truefalsn uNI'))
def test_any_text_that_looks_like_json_decodes_or_raises_decode_error(text: str) -> None:
    with contextlib.suppress(DecodeError):
        JSON.decode(text.encode())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"\xff", "utf-8"),
        ('{"a":1}'.encode("utf-16"), "utf-8"),
        (b"1 2", "Extra data"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"9" * 5000, "4300"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
    ],
    ids=[
        "empty",
        "no UTF-8",
        "UTF-16",
        "trailing",
        "NaN",
        "infinity",
        "huge int",
        "deep lists",
        "deep objects",
    ],
)
def test_bytes_that_are_not_json_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        JSON.decode(data)
