"""Records: what is stored is read back, what is not ours is refused, and any difference is one of the digest."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nats_jobs.errors import Malformed, ScheduleError
from nats_jobs.scheduler import Every
from nats_jobs.scheduler._record import dump_record, load_record
from support.schedules import NOON, at, record_of, schedule_of


def hourly(after: datetime) -> datetime:
    return after + timedelta(hours=1)


def payload(tick: datetime) -> str:
    return tick.isoformat()


DIFFERENT: list[dict[str, Any]] = [
    {"rule": "@every 2s"},
    {"rule": hourly},
    {"tz": "Europe/Berlin"},
    {"target": "others"},
    {"payload": {"n": 1}},
    {"payload": payload},
    {"catch_up": "all"},
    {"window": 5},
    {"max_catch_up": 5},
    {"overlap": "skip"},
    {"jitter": 1},
    {"start": NOON},
    {"end": NOON},
    {"limit": 3},
]


@pytest.mark.parametrize("fields", [{}, *DIFFERENT], ids="-".join)
def test_a_record_is_read_back_as_it_was_stored(fields: dict[str, Any]) -> None:
    record = replace(record_of(**fields), last=at(3), count=2, job=7, paused=True, note="for now")
    assert load_record(dump_record(record)) == record


def test_every_difference_of_two_schedules_is_one_of_their_digests() -> None:
    digests = [record_of(**fields).terms.digest for fields in ({}, *DIFFERENT)]
    assert len(set(digests)) == len(digests)


def test_the_same_rule_in_another_spelling_is_the_same_schedule() -> None:
    same: list[Any] = ["@every 1s", " @every 1000ms", Every(1), Every(1.0, offset=1)]
    assert len({record_of(rule=rule).terms.digest for rule in same}) == 1
    assert record_of(version=3).terms.digest == record_of().terms.digest


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_a_record_with_one_field_of_another_kind_is_malformed_or_as_good_as_ours(value: Any) -> None:
    form = json.loads(dump_record(record_of()))
    for place in (form, form["terms"]):
        for name in list(place):
            before, place[name] = place[name], value
            try:
                load_record(json.dumps(form).encode())
            except Malformed:
                pass

            place[name] = before


@given(st.binary(max_size=200))
def test_what_is_no_record_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        load_record(data)


BAD: list[tuple[str, Any]] = [
    ("id", "a.b"),
    ("id", ""),
    ("id", "x" * 65),
    ("id", 7),
    ("rule", ""),
    ("rule", "* * *"),
    ("rule", "61 * * * *"),
    ("rule", "0 0 30 2 *"),
    ("rule", lambda tick: tick),
    ("rule", 5),
    ("tz", "Europe/Atlantis"),
    ("target", 5),
    ("target", "jobs.*"),
    ("catch_up", "some"),
    ("overlap", "queue"),
    ("engine", "redis"),
    ("window", 0),
    ("window", float("nan")),
    ("jitter", -1),
    ("max_catch_up", 0),
    ("limit", 0),
    ("limit", True),
    ("version", -1),
    ("version", 1.5),
    ("start", datetime(2027, 1, 1)),
    ("end", "tomorrow"),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{field}-{n}" for n, (field, _) in enumerate(BAD)])
def test_a_schedule_that_cannot_work_is_refused_when_it_is_built_and_the_field_is_named(
    field: str, value: Any
) -> None:
    with pytest.raises(ScheduleError) as caught:
        schedule_of(**{field: value})

    assert caught.value.field == field
    assert caught.value.reason


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(ScheduleError, match="before start"):
        schedule_of(start=at(1), end=at(0))
