"""A definition that could not work is refused when it is built, with a sentence that names the field and helps."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    RetentionPolicy,
    StreamConfig,
)

from nats_jobs import Job, JobDef, JobOptions, codecs, exp_backoff, job
from nats_jobs.errors import NatsJobsError, UsageError


async def perform(job: Job[Any]) -> None: ...


def plain(job: Job[Any]) -> None: ...


def two_arguments(job: Job[Any], more: int) -> None: ...


def no_argument() -> None: ...


def keyword_needed(job: Job[Any], *, more: int) -> None: ...


def generator(job: Job[Any]) -> Iterator[int]:
    yield 1


async def async_generator(job: Job[Any]) -> AsyncIterator[int]:
    yield 1


class Callable_:
    async def __call__(self, job: Job[Any]) -> None: ...

    async def method(self, job: Job[Any]) -> None: ...

    def plain_method(self, job: Job[Any]) -> None: ...


class PlainCallable:
    def __call__(self, job: Job[Any]) -> None: ...


class GeneratorObject:
    def __call__(self, job: Job[Any]) -> Iterator[int]:
        yield 1


def define(**fields: Any) -> JobDef[Any]:
    return JobDef(**{"stream": "ORDERS", "perform": perform, **fields})


def fixed(function: Any, *args: Any) -> Any:
    return functools.partial(function, *args)


# Field, a value that cannot work, words that help.
REFUSED = [
    ("stream", "", "a name is needed"),
    ("stream", None, "a name is needed"),
    ("stream", b"ORDERS", "a name is needed"),
    ("stream", "a.b", "cannot contain '.'"),
    ("stream", "a b", "cannot contain ' '"),
    ("stream", "a*", "cannot contain '*'"),
    ("stream", "a>", "cannot contain '>'"),
    ("stream", "a/b", "cannot contain '/'"),
    ("stream", "a\\b", "cannot contain"),
    ("stream", "a\nb", "cannot contain"),
    ("stream", "a\x00b", "cannot contain"),
    ("stream", "a\u00a0b", "cannot contain"),
    ("perform", None, "a function that takes the job is needed"),
    ("perform", "perform", "a function that takes the job is needed"),
    ("perform", no_argument, "one argument, the job"),
    ("perform", two_arguments, "one argument, the job"),
    ("perform", keyword_needed, "one argument, the job"),
    ("perform", fixed(perform, None), "one argument, the job"),
    ("perform", generator, "yield"),
    ("perform", async_generator, "yield"),
    ("perform", functools.partial(generator), "yield"),
    ("perform", functools.partial(async_generator), "yield"),
    ("perform", GeneratorObject(), "yield"),
    ("stream_config", {"subjects": ["a"]}, "StreamConfig is needed"),
    ("stream_config", ConsumerConfig(), "StreamConfig is needed"),
    ("stream_config", StreamConfig(name="OTHER"), "leave the second out"),
    (
        "stream_config",
        StreamConfig(retention=RetentionPolicy.INTEREST),
        "use work queue (the default) or limits",
    ),
    ("consumer_config", {"ack_wait": 5}, "ConsumerConfig is needed"),
    ("consumer_config", StreamConfig(), "ConsumerConfig is needed"),
    ("consumer_config", ConsumerConfig(durable_name="a.b"), "durable_name"),
    ("consumer_config", ConsumerConfig(durable_name="a", name="b"), "leave the name out"),
    ("consumer_config", ConsumerConfig(backoff=[1, 2]), "backoff field of the definition"),
    ("consumer_config", ConsumerConfig(deliver_subject="x"), "jobs are pulled"),
    ("consumer_config", ConsumerConfig(deliver_group="x"), "jobs are pulled"),
    ("consumer_config", ConsumerConfig(ack_policy=AckPolicy.NONE), "must be explicit"),
    ("consumer_config", ConsumerConfig(ack_policy=AckPolicy.ALL), "must be explicit"),
    ("consumer_config", ConsumerConfig(inactive_threshold=60), "leave it out"),
    ("consumer_config", ConsumerConfig(ack_wait=0), "seconds above 0"),
    ("consumer_config", ConsumerConfig(ack_wait=-1), "seconds above 0"),
    ("consumer_config", ConsumerConfig(ack_wait=math.nan), "seconds above 0"),
    ("consumer_config", ConsumerConfig(max_deliver=4), "leave max_deliver out"),
    ("consumer_config", ConsumerConfig(deliver_policy=DeliverPolicy.NEW), "must be all"),
    ("filter_subject", "", "empty"),
    ("filter_subject", "a..b", "empty token"),
    ("filter_subject", "a b", "blanks"),
    ("filter_subject", "a.>.b", "last token"),
    ("filter_subject", 7, "one subject is needed"),
    ("filter_subject", ["a", "b"], "consumer_config.filter_subjects"),
    ("concurrency", 0, "1 or more"),
    ("concurrency", -1, "1 or more"),
    ("concurrency", 1.5, "whole number"),
    ("concurrency", True, "whole number"),
    ("concurrency", "2", "whole number"),
    ("concurrency", None, "whole number"),
    ("batch", 0, "1 or more"),
    ("batch", 2.0, "whole number"),
    ("pull_interval", 0.05, "0.1 seconds or more"),
    ("pull_interval", 0, "0.1 seconds or more"),
    ("pull_interval", math.inf, "0.1 seconds or more"),
    ("pull_interval", math.nan, "0.1 seconds or more"),
    ("pull_interval", None, "0.1 seconds or more"),
    ("pull_interval", "30", "0.1 seconds or more"),
    ("num_attempts", 0, "1 or more"),
    ("num_attempts", math.inf, "whole number"),
    ("backoff", -1, "0 or more"),
    ("backoff", math.inf, "finite"),
    ("backoff", math.nan, "finite"),
    ("backoff", [], "at least one"),
    ("backoff", [1, -1], "backoff[1]"),
    ("backoff", "1s", "seconds"),
    ("backoff", None, "seconds"),
    ("auto_extend_ack_timeout", 1, "True or False"),
    ("auto_extend_ack_timeout", None, "True or False"),
    ("timeout", 0, "above 0"),
    ("timeout", -1, "above 0"),
    ("timeout", math.inf, "None for no limit"),
    ("timeout", "1m", "above 0"),
    ("timeout", True, "above 0"),
    ("max_delay", 0, "above 0"),
    ("max_delay", math.inf, "above 0"),
    ("max_delay", None, "above 0"),
    ("expected", 0, "above 0"),
    ("expected", math.nan, "above 0"),
    ("stop_grace", -1, "0 or more"),
    ("stop_grace", -0.1, "0 or more"),
    ("stop_grace", math.nan, "0 or more"),
    ("stop_grace", "5", "0 or more"),
    ("stop_grace", False, "0 or more"),
    ("codec", "json", "nats_jobs.codecs"),
    ("codec", object(), "encode and decode"),
    ("dead_letter", "no", "True or False"),
    ("dead_letter", 0, "True or False"),
    ("update", None, "True or False"),
    ("run_in", "fork", "thread"),
    ("run_in", None, "thread"),
]


@pytest.mark.parametrize(("field", "value", "hint"), REFUSED)
def test_a_value_that_cannot_work_is_refused_with_a_hint(field: str, value: Any, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        define(**{field: value})

    assert field in str(refused.value)
    assert hint in str(refused.value)


@pytest.mark.parametrize(("field", "value", "hint"), REFUSED)
def test_the_decorator_refuses_the_same(field: str, value: Any, hint: str) -> None:
    options: dict[str, Any] = {"stream": "ORDERS", "perform": perform, field: value}
    function = options.pop("perform")
    with pytest.raises(UsageError, match=re.escape(hint)):
        job(**options)(function)


ACCEPTED = [
    ("stream", "ORDERS-2_ä"),
    ("perform", plain),
    ("perform", lambda job: None),
    ("perform", functools.partial(two_arguments, more=1)),
    ("perform", functools.partial(keyword_needed, more=1)),
    ("perform", Callable_()),
    ("perform", Callable_().method),
    ("perform", PlainCallable()),
    ("perform", print),
    ("stream_config", StreamConfig(name="ORDERS")),
    ("stream_config", StreamConfig(subjects=["a", "b.*"], retention=RetentionPolicy.LIMITS)),
    ("consumer_config", ConsumerConfig(ack_wait=0.5)),
    ("consumer_config", ConsumerConfig(durable_name="mine", name="mine")),
    ("consumer_config", ConsumerConfig(max_deliver=5)),
    ("consumer_config", ConsumerConfig(max_deliver=-1)),
    ("filter_subject", "a.*.>"),
    ("concurrency", 1000),
    ("batch", 1),
    ("batch", None),
    ("pull_interval", 0.1),
    ("pull_interval", 1),
    ("num_attempts", 1),
    ("backoff", 0),
    ("backoff", exp_backoff(1)),
    ("backoff", lambda attempt: attempt),
    ("timeout", 0.001),
    ("max_delay", 60),
    ("expected", 1),
    ("stop_grace", 0),
    ("stop_grace", math.inf),
    ("codec", codecs.JSON),
    ("dead_letter", False),
    ("update", False),
    ("run_in", "thread"),
]


@pytest.mark.parametrize(("field", "value"), ACCEPTED)
def test_what_can_work_is_kept_as_it_was_given(field: str, value: Any) -> None:
    assert getattr(define(**{field: value}), field) is value


def test_every_field_has_a_bad_value_here() -> None:
    assert {field for field, _, _ in REFUSED} == {field.name for field in dataclasses.fields(JobDef)}


def test_the_defaults_are_those_of_the_documentation() -> None:
    defn = define()
    assert {field.name: getattr(defn, field.name) for field in dataclasses.fields(defn)} == {
        "stream": "ORDERS",
        "perform": perform,
        "stream_config": None,
        "consumer_config": None,
        "filter_subject": None,
        "concurrency": 1,
        "batch": None,
        "pull_interval": 30.0,
        "num_attempts": 5,
        "backoff": 1.0,
        "auto_extend_ack_timeout": True,
        "timeout": None,
        "max_delay": 365 * 86_400.0,
        "expected": None,
        "stop_grace": None,
        "codec": None,
        "dead_letter": True,
        "update": True,
        "run_in": "thread",
    }
    assert defn.consumer == "ORDERSConsumer"
    assert defn.encoder is codecs.MSGPACK
    assert defn.decoder is codecs.RAW


def test_a_codec_is_used_in_both_directions() -> None:
    defn = define(codec=codecs.JSON)
    assert defn.encoder is defn.decoder is codecs.JSON


@pytest.mark.parametrize("config", [ConsumerConfig(durable_name="mine"), ConsumerConfig(name="mine")])
def test_the_consumer_has_the_name_that_was_given(config: ConsumerConfig) -> None:
    assert define(consumer_config=config).consumer == "mine"


class Place(str, enum.Enum):  # noqa: UP042  # the format() of a StrEnum is its text
    """As a program names its streams."""

    MAIL = "mail"
    PARCELS = "mail.parcels"


def test_a_member_of_an_enumeration_stands_for_its_text() -> None:
    defn = JobDef(stream=Place.MAIL, filter_subject=Place.PARCELS, perform=perform)
    assert (f"{defn.stream}", f"{defn.filter_subject}") == ("mail", "mail.parcels")
    assert defn.consumer == "mailConsumer"


def test_a_definition_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        define().concurrency = 2  # type: ignore[misc]


def test_a_definition_cannot_be_subclassed() -> None:
    with pytest.raises(UsageError, match="final"):
        type("Mine", (JobDef,), {})


def test_a_changed_copy_is_checked_again() -> None:
    assert dataclasses.replace(define(), concurrency=2).concurrency == 2
    with pytest.raises(UsageError, match="concurrency"):
        dataclasses.replace(define(), concurrency=0)


def test_its_text_names_stream_consumer_and_function() -> None:
    assert repr(define()) == "JobDef(stream='ORDERS', consumer='ORDERSConsumer', perform=perform)"


@pytest.mark.parametrize(
    "handler",
    [
        perform,
        Callable_(),
        Callable_().method,
        functools.partial(functools.partial(perform)),
        functools.partial(Callable_()),
    ],
)
def test_an_async_handler_is_known_as_one_in_whatever_it_is_wrapped(handler: Any) -> None:
    assert define(perform=handler).is_async


@pytest.mark.parametrize(
    "handler", [plain, PlainCallable(), Callable_().plain_method, functools.partial(plain), print]
)
def test_a_plain_handler_is_known_as_one(handler: Any) -> None:
    assert not define(perform=handler).is_async


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"filter_subject": "a", "consumer_config": ConsumerConfig(filter_subject="b")}, "give one of them"),
        (
            {"filter_subject": "a", "consumer_config": ConsumerConfig(filter_subjects=["a"])},
            "give one of them",
        ),
        ({"num_attempts": 30, "consumer_config": ConsumerConfig(max_deliver=29)}, "leave max_deliver out"),
    ],
)
def test_two_fields_that_contradict_each_other_are_refused(fields: dict[str, Any], hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        define(**fields)


def test_a_stream_with_limits_retention_may_deliver_from_anywhere() -> None:
    define(
        stream_config=StreamConfig(retention=RetentionPolicy.LIMITS),
        consumer_config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW),
    )


# As those call it whose program no type checker sees.
untyped: Any = job


def test_the_options_of_the_decorator_are_the_fields_of_a_definition() -> None:
    names = {field.name for field in dataclasses.fields(JobDef)} - {"stream", "perform"}
    assert set(JobOptions.__annotations__) == names


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("concurency", "concurrency"),
        ("time_out", "timeout"),
        ("attempts", "num_attempts"),
        ("back_off", "backoff"),
    ],
)
def test_an_unknown_field_is_refused_with_the_near_one(wrong: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"'{wrong}'; did you mean {near}\?"):
        untyped("ORDERS", **{wrong: 1})


def test_an_unknown_field_with_no_near_one_lists_all() -> None:
    with pytest.raises(UsageError, match=r"the known ones are: .*concurrency.*dead_letter"):
        untyped("ORDERS", zzz=1)


def test_the_decorator_makes_a_definition_of_the_function_below_it() -> None:
    @job("ORDERS", concurrency=3, codec=codecs.JSON)
    async def ship(job: Job[dict[str, int]]) -> None: ...

    assert isinstance(ship, JobDef)
    assert (ship.stream, ship.concurrency, ship.codec) == ("ORDERS", 3, codecs.JSON)
    assert repr(ship).endswith("ship)")


def test_the_decorator_without_its_arguments_says_so() -> None:
    bare: Any = job
    with pytest.raises(UsageError, match=r'write @job\("ORDERS"\) above perform'):
        bare(perform)


def test_the_stream_can_be_given_by_name() -> None:
    assert job(stream="ORDERS")(perform).stream == "ORDERS"


@pytest.mark.parametrize("builtin", [ValueError, TypeError])
def test_a_refusal_is_an_error_of_the_library_and_of_either_builtin_kind(builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="concurrency") as refused:
        define(concurrency=0)

    assert isinstance(refused.value, NatsJobsError)
