"""Typed payloads: models of four libraries go in and come out as they are, and what does not fit is refused in words."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, strategies as st

from nats_jobs import codecs, errors
from nats_jobs.codecs import JSON, MSGPACK, Codec, typed


class Model(pydantic.BaseModel):
    number: int
    price: Decimal
    at: datetime
    tags: list[str] = []
    by_id: dict[int, uuid.UUID] = {}


class Struct(msgspec.Struct):
    number: int
    price: Decimal
    at: datetime
    tags: list[str] = []
    by_id: dict[int, uuid.UUID] = {}


@dataclass
class Plain:
    number: int
    price: Decimal
    at: datetime
    tags: list[str] = field(default_factory=list)
    by_id: dict[int, uuid.UUID] = field(default_factory=dict)


@attrs.define
class Attrs:
    number: int
    price: Decimal
    at: datetime
    tags: list[str] = attrs.Factory(list)
    by_id: dict[int, uuid.UUID] = attrs.Factory(dict)


class Dictionary(TypedDict):
    number: int
    name: str


KINDS = [Model, Struct, Plain, Attrs]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
each_codec = pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=lambda codec: codec.name)
fields = st.fixed_dictionaries(
    {
        "number": st.integers(-(2**63), 2**63 - 1),
        "price": st.decimals(allow_nan=False, allow_infinity=False),
        "at": st.datetimes(timezones=st.just(UTC)),
        "tags": st.lists(st.text(), max_size=3),
        "by_id": st.dictionaries(st.integers(0, 9), st.uuids(), max_size=3),
    }
)


def an_order(kind: Any) -> Any:
    return kind(7, Decimal("1.50"), datetime(2027, 3, 28, tzinfo=UTC)) if kind is not Model else a_model()


def a_model() -> Model:
    return Model(number=7, price=Decimal("1.50"), at=datetime(2027, 3, 28, tzinfo=UTC))


@each_kind
@each_codec
@given(values=fields)
def test_a_value_comes_back_as_one_of_its_type(kind: Any, codec: Codec, values: dict[str, Any]) -> None:
    value = kind(**values)

    back = typed(kind, codec).decode(typed(kind, codec).encode(value))

    assert type(back) is kind
    assert back == value


@each_kind
def test_the_bytes_are_those_of_the_codec_below(kind: Any) -> None:
    codec = typed(kind, JSON)

    assert codec.content_type == JSON.content_type
    assert JSON.decode(codec.encode(an_order(kind)))["number"] == 7


@each_kind
@each_codec
def test_bytes_that_do_not_make_one_are_refused_with_the_field_and_its_fault(kind: Any, codec: Codec) -> None:
    data = codec.encode({"number": "seven", "price": "1", "at": "2027-03-28T00:00:00Z"})

    with pytest.raises(errors.DecodeError, match=r"number") as caught:
        typed(kind, codec).decode(data)

    assert caught.value.codec == f"{kind.__name__} in {codec.name}"
    assert "int" in caught.value.reason
    assert "\n" not in caught.value.reason


@each_kind
def test_bytes_of_another_format_are_refused_by_the_codec_below(kind: Any) -> None:
    with pytest.raises(errors.DecodeError, match="as json"):
        typed(kind, JSON).decode(b"\xff")


@each_kind
def test_what_is_not_of_the_type_is_refused_when_it_is_encoded(kind: Any) -> None:
    with pytest.raises(errors.EncodeError, match=f"dict is not {kind.__name__}"):
        typed(kind).encode({"number": 7})


@each_kind
def test_a_field_that_was_set_to_something_else_is_refused_when_it_is_encoded(kind: Any) -> None:
    order = an_order(kind)
    order.number = "seven"

    with pytest.raises(errors.EncodeError, match="int"):
        typed(kind).encode(order)


def test_a_typed_dict_and_a_list_of_models_are_types_too() -> None:
    assert typed(Dictionary).decode(typed(Dictionary).encode({"number": 1, "name": "a"})) == {
        "number": 1,
        "name": "a",
    }
    with pytest.raises(errors.EncodeError, match="name"):
        typed(Dictionary).encode({"number": 1})

    orders = [a_model(), a_model()]
    assert typed(list[Model]).decode(typed(list[Model]).encode(orders)) == orders


def test_the_same_type_can_be_carried_by_another_codec() -> None:
    data = JSON.encode({"number": 1, "name": "a"})

    assert typed(Dictionary).carried_by(JSON).decode(data) == {"number": 1, "name": "a"}


def test_aliases_of_a_model_are_its_names_on_the_wire() -> None:
    class Aliased(pydantic.BaseModel):
        number: int = pydantic.Field(alias="orderNumber")

    codec = typed(Aliased, JSON)
    assert codec.encode(Aliased(orderNumber=7)) == b'{"orderNumber":7}'
    assert codec.decode(b'{"orderNumber":7}').number == 7


def test_a_type_that_cannot_be_checked_is_refused_when_the_codec_is_made() -> None:
    with pytest.raises(errors.UsageError, match="cannot check payloads"):
        typed(lambda: None)


def test_without_a_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nats_jobs.codecs._typed.find_spec", lambda name: None)

    with pytest.raises(errors.UsageError, match="install msgspec or pydantic"):
        typed(Plain)


def test_pydantic_checks_a_dataclass_where_msgspec_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "nats_jobs.codecs._typed.find_spec", lambda name: find_spec(name) if name == "pydantic" else None
    )
    codec = typed(Plain)

    assert codec.decode(codec.encode(an_order(Plain))) == an_order(Plain)


def test_its_repr_says_the_type_and_the_codec() -> None:
    assert repr(codecs.typed(Plain, JSON)) == "codecs.typed(Plain, codecs.JSON)"
