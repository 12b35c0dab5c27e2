"""MSGPACK: round trips, moments in time, what Node sends, and bytes that mean harm."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import pathlib
import subprocess
import sys
import threading
import uuid
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal

import msgpack
import pytest
from hypothesis import given, strategies as st

from nats_jobs.codecs import MSGPACK
from nats_jobs.errors import DecodeError, EncodeError

# What fits when it is brought to UTC; the zones of the tests are within a day of it.
moments = st.datetimes(
    datetime(1, 1, 2),
    datetime(9999, 12, 30),
    timezones=st.sampled_from(
        [UTC, timezone(timedelta(hours=-4, minutes=-56, seconds=-2)), timezone(timedelta(hours=14))]
    ),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | moments
)
keys = st.text() | st.integers(-(2**63), 2**64 - 1) | st.binary() | st.booleans() | st.none()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20)

# Written by msgpackr 2.1.3 `pack(date)` and @msgpack/msgpack 3.1.3 `encode(date)` on Node 20.
# Where one line stands for both, they wrote the same bytes.
NODE_DATES = [
    ("both: 1970", "d6ff00000000", datetime(1970, 1, 1, tzinfo=UTC)),
    (
        "both: a millisecond before",
        "c70cff3b8b87c0ffffffffffffffff",
        datetime(1969, 12, 31, 23, 59, 59, 999000, UTC),
    ),
    ("both: 1969", "c70cff0754d4c0ffffffffff2795e4", datetime(1969, 7, 20, 20, 17, 40, 123000, UTC)),
    ("both: with milliseconds", "d7ff1d535300663881d9", datetime(2024, 5, 6, 7, 8, 9, 123000, UTC)),
    ("both: whole second", "d6ff663881d9", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
    ("msgpackr: 2107", "c70cff1dcd65000000000101b01100", datetime(2107, 1, 1, 0, 0, 0, 500000, UTC)),
    ("@msgpack/msgpack: 2107", "d7ff7735940101b01100", datetime(2107, 1, 1, 0, 0, 0, 500000, UTC)),
    ("both: beyond 34 bits", "c70cff000000000000000400000000", datetime(2514, 5, 30, 1, 53, 4, tzinfo=UTC)),
    ("both: 2600", "c70cff2869758000000004a0ffef25", datetime(2600, 1, 2, 3, 4, 5, 678000, UTC)),
    ("both: 1600", "c70cff28697580fffffffd480e66a5", datetime(1600, 1, 2, 3, 4, 5, 678000, UTC)),
    ("both: last of 9999", "c70cff3b8b87c00000003afff4417f", datetime(9999, 12, 31, 23, 59, 59, 999000, UTC)),
    (
        "@msgpack/msgpack: invalid Date, which it writes as 1970",
        "c70cff" + "00" * 12,
        datetime(1970, 1, 1, tzinfo=UTC),
    ),
]

# msgpackr 2.1.3, `pack(value)`.
MSGPACKR_VALUES = [
    ("object with a Date", "de0003a16101a162a178a47768656ed7ff003d090000000000", {"a": 1, "b": "x", "when": datetime(1970, 1, 1, 0, 0, 0, 1000, UTC)}),
    ("undefined", "d40000", None),
    ("object with undefined", "de0001a161d40000", {"a": None}),
    ("sparse array", "9301d4000003", [1, None, 3]),
    ("10n", "d3000000000000000a", 10),
    ("2n**64n-1n", "cfffffffffffffffff", 2**64 - 1),
    ("Buffer", "c4026869", b"hi"),
    ("Map with a number as key", "82a1610102a162", {"a": 1, 2: "b"}),
    ("Set", "9201a161", [1, "a"]),
    ("TypeError('boom')", "93a9547970654572726f72a4626f6f6dd40000", ["TypeError", "boom", None]),
    ("2**32, a float on the wire", "cb41f0000000000000", 4294967296.0),
    ("Infinity", "cb7ff0000000000000", float("inf")),
]  # fmt: skip

# msgpackr 2.1.3 again, asked for more than `pack` does: `new Packr().pack`, and structuredClone or moreTypes.
MSGPACKR_REFUSED = [
    ("records", "d4724093a161a162a47768656e01a178d7ff003d090000000000", "useRecords: false"),
    ("records in an array", "92d4724091a161014002", "useRecords: false"),
    ("records in a Map's key", "81d4724091a1610101", "useRecords: false"),
    ("BigInt of 70 bits", "d84200000000000000400000000000000000", "BigInt"),
    ("Set", "d473009201a161", "Set"),
    ("Error", "d4650093a9547970654572726f72a4626f6f6dd40000", "Error"),
    ("RegExp", "d4780092a361622ba26769", "RegExp"),
    ("Uint8Array", "c70374010102", "typed array"),
    ("invalid Date", "d4ffff", "(?i)timestamp"),
    ("year 10000", "c70cff000000000000003afff44180", "years 1 to 9999"),
    ("year -1", "c70cff00000000fffffff184aa5080", "years 1 to 9999"),
    ("half a surrogate pair", "a3eda080", "UTF-8"),
]

REFUSED_VALUES: list[tuple[object, str]] = [
    ({(1, 2): 3}, "it could not be decoded"),
    ([{"a": {(): None}}], "it could not be decoded"),
    ([datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-12)))], "outside the years 1 to 9999"),
    (2**64, "64 bits"),
    ({"deep": [-(2**63) - 1]}, "64 bits"),
    (date(2024, 5, 6), "date is not supported; send isoformat()"),
    (time(7, 8), "isoformat()"),
    (timedelta(1), "total_seconds()"),
    (Decimal("1.1"), "Decimal is not supported; send str() of it"),
    (uuid.UUID(int=1), "UUID"),
    (pathlib.PurePath("/a"), "str()"),
    ({1, 2}, "set is not supported; send list() of it"),
    (object(), "object is not supported"),
    (int, "class"),
    (1j, "complex is not supported"),
    ("\ud800", "surrogates"),
    (memoryview(b"abcd")[::2], "contiguous"),
]


@dataclasses.dataclass
class Order:
    number: int


class Model:
    def model_dump(self) -> dict[str, object]:
        return {}


class Colour(enum.Enum):
    RED = 1


class Moment(datetime):
    """As pandas, pendulum and time-freezing test tools have it."""


class Nowhere(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None

    dst = utcoffset

    def tzname(self, moment: datetime | None) -> None:
        return None


class EndOfSummer(Nowhere):
    """A zone at the hour that happens twice."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1 if moment and moment.fold else 2)


Point = namedtuple("Point", "x y")  # noqa: PYI024


class Explosive(dict[str, int]):
    def items(self) -> object:  # type: ignore[override]
        raise RuntimeError("boom")

    def __len__(self) -> int:
        raise RuntimeError("boom")


@given(values)
def test_a_value_survives_the_round_trip(value: object) -> None:
    assert MSGPACK.decode(MSGPACK.encode(value)) == value


@given(values)
def test_a_value_is_written_as_msgpack_itself_would(value: object) -> None:
    assert MSGPACK.encode(value) == msgpack.packb(value, datetime=True)


@given(moments)
def test_a_moment_comes_back_in_utc_to_the_microsecond(moment: datetime) -> None:
    back = MSGPACK.decode(MSGPACK.encode(moment))

    assert back == moment
    assert back.tzinfo is UTC


@pytest.mark.parametrize("kind", [datetime, Moment])
def test_the_hour_that_happens_twice_is_told_apart(kind: type[datetime]) -> None:
    first, second = (
        MSGPACK.encode(kind(2024, 10, 27, 2, 30, tzinfo=EndOfSummer(), fold=fold)) for fold in (0, 1)
    )

    assert MSGPACK.decode(first) == datetime(2024, 10, 27, 0, 30, tzinfo=UTC)
    assert MSGPACK.decode(second) == datetime(2024, 10, 27, 1, 30, tzinfo=UTC)


@given(moments)
def test_a_subclass_of_datetime_is_written_as_a_datetime_is(moment: datetime) -> None:
    subclass = Moment.fromisoformat(moment.isoformat())

    assert MSGPACK.encode(subclass) == MSGPACK.encode(datetime.fromisoformat(moment.isoformat()))


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (OrderedDict(a=1), {"a": 1}),
        (True, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_of_its_own_comes_back_as_its_nearest_kin(value: object, back: object) -> None:
    decoded = MSGPACK.decode(MSGPACK.encode(value))

    assert decoded == back
    assert type(decoded) is type(back)


@pytest.mark.parametrize(("who", "sent", "moment"), NODE_DATES, ids=[row[0] for row in NODE_DATES])
def test_a_date_from_node_is_an_aware_datetime(who: str, sent: str, moment: datetime) -> None:
    back = MSGPACK.decode(bytes.fromhex(sent))

    assert back == moment
    assert back.tzinfo is UTC


@pytest.mark.parametrize(("what", "sent", "value"), MSGPACKR_VALUES, ids=[row[0] for row in MSGPACKR_VALUES])
def test_what_msgpackr_packs_by_default_is_read(what: str, sent: str, value: object) -> None:
    assert MSGPACK.decode(bytes.fromhex(sent)) == value


@pytest.mark.parametrize(("what", "sent", "said"), MSGPACKR_REFUSED, ids=[row[0] for row in MSGPACKR_REFUSED])
def test_what_msgpackr_alone_understands_is_refused_in_words(what: str, sent: str, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        MSGPACK.decode(bytes.fromhex(sent))


def test_nanoseconds_are_cut_to_microseconds() -> None:
    sent = b"\xc7\x0c\xff" + (999_999_999).to_bytes(4, "big") + (1).to_bytes(8, "big")

    assert MSGPACK.decode(sent) == datetime(1970, 1, 1, 0, 0, 1, 999_999, UTC)


@pytest.mark.parametrize("moment", [datetime(2024, 5, 6), Moment(2024, 5, 6)], ids=["datetime", "subclass"])
def test_a_naive_datetime_is_refused(moment: datetime) -> None:
    with pytest.raises(EncodeError, match="needs a tzinfo"):
        MSGPACK.encode({"when": [moment]})


def test_a_zone_that_has_no_offset_is_refused() -> None:
    with pytest.raises(EncodeError):
        MSGPACK.encode(datetime(2024, 5, 6, tzinfo=Nowhere()))


@pytest.mark.parametrize(
    ("value", "said"), REFUSED_VALUES, ids=[type(row[0]).__name__ for row in REFUSED_VALUES]
)
def test_a_value_without_a_form_is_refused_with_advice(value: object, said: str) -> None:
    with pytest.raises(EncodeError) as caught:
        MSGPACK.encode(value)

    assert caught.value.codec == "msgpack"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [(Order(1), "asdict"), (Model(), "model_dump"), (Colour.RED, ".value")],
    ids=["dataclass", "model", "enum"],
)
def test_the_advice_knows_the_usual_containers(value: object, said: str) -> None:
    with pytest.raises(EncodeError, match=said):
        MSGPACK.encode([value])


def test_a_value_that_holds_itself_is_refused() -> None:
    knot: list[object] = []
    knot.append(knot)

    with pytest.raises(EncodeError, match="recursion"):
        MSGPACK.encode(knot)


def test_a_failure_inside_the_value_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match="boom"):
        MSGPACK.encode(Explosive())


@given(st.binary())
def test_any_bytes_decode_or_raise_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        MSGPACK.decode(data)


@given(values, st.data())
def test_a_value_with_a_changed_byte_decodes_or_raises_decode_error(
    value: object, data: st.DataObject
) -> None:
    """Gets further into the format than arbitrary bytes do."""
    encoded = bytearray(MSGPACK.encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(DecodeError):
        MSGPACK.decode(bytes(encoded))


@given(st.sampled_from([4, 8, 12]).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
def test_any_timestamp_is_a_moment_or_raises_decode_error(content: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert isinstance(MSGPACK.decode(bytes((0xC7, len(content), 0xFF)) + content), datetime)


@given(values, st.data())
def test_every_cut_of_a_value_is_refused(value: object, data: st.DataObject) -> None:
    encoded = MSGPACK.encode(value)
    cut = data.draw(st.integers(0, len(encoded) - 1))

    with pytest.raises(DecodeError):
        MSGPACK.decode(encoded[:cut])


@given(values, st.binary(min_size=1))
def test_bytes_after_the_value_are_refused(value: object, rest: bytes) -> None:
    with pytest.raises(DecodeError, match=f"{len(rest)} more bytes follow"):
        MSGPACK.decode(MSGPACK.encode(value) + rest)


@pytest.mark.parametrize(
    "level", [b"\x91", b"\x81\x01", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"], ids=bytes.hex
)
def test_a_nesting_bomb_is_refused(level: bytes) -> None:
    with pytest.raises(DecodeError, match="nested too deeply"):
        MSGPACK.decode(level * 200_000 + b"\xc0")


@pytest.mark.parametrize(
    "lie",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ],
    ids=bytes.hex,
)
def test_a_length_that_lies_is_refused(lie: bytes) -> None:
    with pytest.raises(DecodeError):
        MSGPACK.decode(lie + b"\x01" * 100)


def test_nested_lengths_that_lie_are_refused() -> None:
    """Each list claims as much as the message has bytes, which passes the bound of a single one."""
    size = 100_000
    data = (b"\xdd" + (size - 1).to_bytes(4, "big")) * 1000

    with pytest.raises(DecodeError):
        MSGPACK.decode(data.ljust(size, b"\x01"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xc1", "not MessagePack"),
        (b"\x81\x90\x01", "map key"),
        (b"", "incomplete"),
        (b"\xd4\x05\x00", "extension type 5 is not known"),
        (b"\xd4\x00\x01", "extension type 0 is not known"),
        (b"\xd7\xff" + b"\xff" * 8, "nanoseconds"),
        (b"\xc7\x0c\xff" + b"\x00" * 4 + b"\x7f" + b"\xff" * 7, "years 1 to 9999"),
    ],
)
def test_the_error_says_what_is_wrong(data: bytes, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        MSGPACK.decode(data)


def test_threads_may_encode_at_once() -> None:
    value = {"text": "x" * 3000, "numbers": list(range(500)), "when": Moment(2024, 5, 6, tzinfo=UTC)}
    expected = MSGPACK.encode(value)
    wrong: list[bytes] = []

    def encode_often() -> None:
        wrong.extend(got for _ in range(200) if (got := MSGPACK.encode(value)) != expected)

    threads = [threading.Thread(target=encode_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


PURE_PYTHON = """
from datetime import UTC, datetime
from nats_jobs.codecs import MSGPACK
from nats_jobs.errors import DecodeError
import msgpack
assert msgpack.Packer.__module__ == "msgpack.fallback"
value = {"when": datetime(1969, 7, 20, 20, 17, 40, 123457, UTC), 1: [b"x", None, 2**64 - 1]}
assert MSGPACK.decode(MSGPACK.encode(value)) == value
for data in (b"\\x91" * 200_000, b"\\xc0\\xc0", b"\\xc1", b"", b"\\xd4\\xff\\xff", b"\\x81\\x90\\x01", b"\\xdd\\xff\\xff\\xff\\xff"):
    try:
        MSGPACK.decode(data)
    except DecodeError:
        continue
    raise SystemExit(data[:10].hex())
"""


def test_msgpack_without_its_extension_module_does_the_same() -> None:
    subprocess.run(
        [sys.executable, "-c", PURE_PYTHON], env={**_environment(), "MSGPACK_PUREPYTHON": "1"}, check=True
    )


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}
