"""What comes over the network is read within bounds, and whatever it is, `Malformed` is all that can come out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nats_jobs._untrusted import field_of, parse_json, parse_number, shorten
from nats_jobs.errors import Malformed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(st.integers(0, 2**64))
def test_a_number_is_read_from_bytes_and_from_text(number: int) -> None:
    assert parse_number(str(number), "a number") == parse_number(b"%d" % number, "a number") == number


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "-1", "1_0", "1.0", "0x1", "\u0663", "\u00b2", "9" * 21, "9" * 5000]
)
def test_what_int_would_take_or_choke_on_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match=r"^the count is malformed: not a number") as caught:
        parse_number(text, "the count")

    assert len(str(caught.value)) < 200


@given(st.binary() | st.text())
def test_any_bytes_are_a_number_or_malformed(data: bytes | str) -> None:
    try:
        number = parse_number(data, "it")
    except Malformed:
        return

    assert 0 <= number < 10**20


@given(JSON)
def test_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    assert parse_json(json.dumps(value), "it") == value
    assert parse_json(json.dumps(value).encode(), "it") == value


@given(st.binary() | st.text())
def test_any_bytes_are_json_or_malformed(data: bytes | str) -> None:
    try:
        parse_json(data, "it")
    except Malformed:
        return


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "[Infinity]",
        '{"a": -Infinity}',
        "9" * 5000,
        "[" * 100_000,
        "[" * 33 + "]" * 33,
        '{"a":' * 33 + "1" + "}" * 33,
        '"' + "a" * 70_000 + '"',
        b"\xff\xfe",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_json_beyond_its_bounds_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match=r"^the advisory is malformed: ") as caught:
        parse_json(text, "the advisory")

    assert len(str(caught.value)) < 300


def test_many_brackets_that_are_not_deep_are_read() -> None:
    assert parse_json("[" + ",".join(["[]"] * 100) + "]", "it") == [[]] * 100
    assert parse_json('"' + "[" * 100 + '"', "it") == "[" * 100
    assert parse_json("[" * 32 + "]" * 32, "it")


def test_the_length_may_be_bounded_otherwise() -> None:
    assert parse_json('"' + "a" * 100_000 + '"', "it", max_bytes=200_000)
    with pytest.raises(Malformed, match="at most 4 are read"):
        parse_json("[1, 2]", "it", max_bytes=4)


@given(JSON, st.sampled_from([str, int, bool, list, dict, float]))
def test_a_field_has_exactly_its_type_or_is_malformed(value: Any, kind: type[Any]) -> None:
    try:
        found = field_of({"a": value}, "a", kind, "it")
    except Malformed:
        assert type(value) is not kind
    else:
        assert type(value) is kind
        assert found == value


def test_a_field_that_is_missing_or_null_has_its_default() -> None:
    assert field_of({}, "a", int, "it", 7) == 7
    assert field_of({"a": None}, "a", int, "it", 7) == 7
    with pytest.raises(Malformed, match="'a' is None; int is expected"):
        field_of({}, "a", int, "it")


@pytest.mark.parametrize("fields", [None, [], "text", 3])
def test_what_is_not_an_object_has_no_fields(fields: object) -> None:
    with pytest.raises(Malformed, match="a JSON object is expected"):
        field_of(fields, "a", int, "it", 7)


@given(st.binary() | st.text())
def test_what_is_shown_is_printable_and_short(data: bytes | str) -> None:
    assert shorten(data).isprintable()
    assert len(shorten(data)) < 80 * 10 + 10
