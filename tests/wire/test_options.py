"""Options are checked when given; what is refused says what to do instead."""

from __future__ import annotations

import inspect
import ssl
from pathlib import Path
from typing import Any, get_type_hints

import nats.aio.client
import pytest

from nats_jobs import job_processor
from nats_jobs.errors import UsageError
from nats_jobs.wire import ConnectOptions, Options, connect

pytestmark = pytest.mark.anyio


def refusal(**given: Any) -> str:
    with pytest.raises(UsageError) as caught:
        Options.build(given)  # type: ignore[arg-type]

    return str(caught.value)


def test_every_option_has_a_default_and_the_same_name_in_both_places() -> None:
    assert set(get_type_hints(ConnectOptions)) == set(Options.__dataclass_fields__)
    assert Options.build({}) == Options()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("pasword", "password"), ("tls_host_name", "tls_hostname"), ("ping_intervall", "ping_interval")],
)
def test_a_misspelt_name_is_answered_with_the_near_one(wrong: str, right: str) -> None:
    assert refusal(**{wrong: 1}) == f"unknown option {wrong!r}; did you mean {right}?"


def test_a_name_that_is_near_to_none_is_answered_with_all() -> None:
    assert (
        refusal(colour="red")
        == f"unknown option 'colour'; the known ones are: {', '.join(Options.__dataclass_fields__)}"
    )


async def test_a_job_processor_and_a_connection_refuse_an_unknown_option_before_they_connect() -> None:
    wrong: Any = {"pasword": "x"}
    with pytest.raises(UsageError, match="did you mean password"):
        async with job_processor("nats://127.0.0.1:1", **wrong):
            pass

    with pytest.raises(UsageError, match="did you mean password"):
        async with connect("nats://127.0.0.1:1", **wrong):
            pass


NATS_PY = set(inspect.signature(nats.aio.client.Client.connect).parameters) - {"self"}


@pytest.mark.parametrize("name", sorted(NATS_PY - set(Options.__dataclass_fields__)))
def test_an_option_that_only_nats_py_has_is_answered_with_what_to_use(name: str) -> None:
    text = refusal(**{name: None})
    assert text.startswith(f"there is no option {name!r} here: ")
    assert len(text) > len(f"there is no option {name!r} here: ") + 10


def test_the_callbacks_of_nats_py_are_events_here() -> None:
    for name in ("error_cb", "disconnected_cb", "reconnected_cb"):
        assert "events()" in refusal(**{name: print})
        assert "listener=" in refusal(**{name: print})


def test_we_have_no_option_that_nats_py_does_not_have_but_one() -> None:
    assert set(Options.__dataclass_fields__) - NATS_PY == {"allow_plain_discovered"}


@pytest.mark.parametrize("name", ["connect_timeout", "ping_interval", "drain_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "2", None, True])
def test_durations_are_finite_and_above_nothing(name: str, value: object) -> None:
    assert refusal(**{name: value}) == f"{name}={value!r}: a finite number above 0 is needed"


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "2", None])
def test_the_wait_between_rounds_may_be_nothing(value: object) -> None:
    assert refusal(reconnect_time_wait=value).endswith("a finite number of 0 or more is needed")
    assert Options.build({"reconnect_time_wait": 0}).reconnect_time_wait == 0


@pytest.mark.parametrize("name", ["max_outstanding_pings", "pending_size"])
@pytest.mark.parametrize("value", [0, 1.5, "2", None, False])
def test_counts_are_whole_and_above_nothing(name: str, value: object) -> None:
    assert refusal(**{name: value}).endswith("a whole number of 1 or more is needed")


def test_the_number_of_attempts_is_whole_and_may_be_negative() -> None:
    assert refusal(max_reconnect_attempts=1.5).endswith("a whole number is needed")
    assert Options.build({"max_reconnect_attempts": -1}).max_reconnect_attempts == -1


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("name", 5, "name is a int: give a text"),
        ("password", 5, "password is a int: give a text, or a function that returns one"),
        ("tls", True, "tls is a bool: give an ssl.SSLContext"),
        ("tls_hostname", "", "tls_hostname is empty"),
        ("token", "", "token is empty"),
        ("user_credentials", b"x", "user_credentials is a bytes: give the path of a credentials file"),
        ("user_credentials", ("a",), "user_credentials: two paths"),
        ("user_jwt_cb", "x", "user_jwt_cb is a str: give a function"),
        ("allow_reconnect", "no", "allow_reconnect is a str: give True or False"),
        ("inbox_prefix", b"_INBOX", "inbox_prefix is a bytes: give a subject"),
        ("ws_connection_headers", [], "ws_connection_headers is a list: give a mapping"),
        ("ws_connection_headers", {"X": "y"}, "'X' needs a list of ASCII texts"),
        (
            "ws_connection_headers",
            {"X": ["a\r\nInjected: 1"]},
            "'X' needs a list of ASCII texts, each one line",
        ),
        ("ws_connection_headers", {"X Y": ["a"]}, "'X Y' is not a valid header name"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_the_right_one(name: str, value: object, told: str) -> None:
    given = {"user": "ann"} if name == "password" else {}
    assert told in refusal(**given, **{name: value})


@pytest.mark.parametrize("prefix", ["", ".", "a.", ".a", "a..b", "a.*", "a.>", "a b", "a\tb", "a\r\nPUB b"])
def test_an_inbox_prefix_is_a_plain_subject(prefix: str) -> None:
    assert "inbox_prefix" in refusal(inbox_prefix=prefix)


@pytest.mark.parametrize(
    "names",
    [
        ("user", "token"),
        ("user_credentials", "user_jwt_cb"),
        ("nkeys_seed", "nkeys_seed_str"),
        ("user", "nkeys_seed"),
        ("token", "nkeys_seed_str"),
        ("user_credentials", "nkeys_seed"),
    ],
)
def test_two_ways_to_authenticate_are_refused_without_showing_them(names: tuple[str, str]) -> None:
    values: dict[str, Any] = dict.fromkeys(names, "hunter2")
    if "user_jwt_cb" in names:
        values["user_jwt_cb"] = values["signature_cb"] = bytes

    text = refusal(**values)
    assert text == f"{names[0]} and {names[1]} were given: a connection authenticates in one way only"


def test_what_needs_another_option_says_which() -> None:
    assert refusal(password="hunter2") == "password without user: give both"
    assert refusal(user_jwt_cb=bytes) == "user_jwt_cb without signature_cb: give both"
    assert refusal(signature_cb=bytes) == "signature_cb without user_jwt_cb: give both"


def test_what_can_work_is_taken() -> None:
    Options.build({"user": "ann", "password": ""})
    Options.build({"token": lambda: "t", "user_credentials": ("a", Path("b"))})
    Options.build(
        {"tls": ssl.create_default_context(), "ws_connection_headers": {"Authorization": ["Bearer x y"]}}
    )
    Options.build({"name": None, "tls_hostname": None, "user": None})


def test_options_cannot_be_changed_later() -> None:
    options: Any = Options()
    with pytest.raises(AttributeError):
        options.user = "eve"
