"""What comes out of a job's process, whatever it is, is facts or `Malformed`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from nats_jobs.errors import Malformed, NatsJobsError, Reject, RemoteError, Retry, Snooze
from nats_jobs.jobs._process_messages import Messages, as_message, error_of, facts_of

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
kinds = st.sampled_from(["returned", "retry", "snooze", "reject", "raised", "log", "started", "ready"])


@given(st.binary(max_size=200))
def test_garbage_is_nothing_yet_or_malformed(data: bytes) -> None:
    messages = Messages()
    messages.feed(data)
    try:
        while (facts := messages.next()) is not None:
            assert isinstance(facts["kind"], str)
    except Malformed:
        pass


@given(plain)
def test_any_message_is_of_a_kind_or_malformed(value: Any) -> None:
    messages = Messages()
    messages.feed(as_message(value))
    try:
        facts = messages.next()
    except Malformed:
        return

    assert facts is not None
    assert isinstance(facts["kind"], str)


@given(kinds, st.dictionaries(st.sampled_from(["delay", "text", "type", "traceback"]), plain))
def test_any_outcome_is_an_error_of_ours_or_none(kind: str, rest: dict[str, Any]) -> None:
    error = error_of({"kind": kind} | rest)
    assert isinstance(error, NatsJobsError) if kind != "returned" else error is None


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=5), st.data()
)
def test_messages_are_the_same_in_whatever_pieces_they_come(sent: list[dict[str, str]], data: Any) -> None:
    sent = [{"kind": "log"} | facts for facts in sent]
    stream = b"".join(as_message(facts) for facts in sent)
    messages, received = Messages(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        messages.feed(stream[:size])
        stream = stream[size:]
        while (facts := messages.next()) is not None:
            received.append(facts)

    assert received == sent


def test_a_message_that_claims_to_be_huge_is_malformed_at_once() -> None:
    messages = Messages()
    messages.feed(b"\xff\xff\xff\xff")
    with pytest.raises(Malformed, match="4294967295 bytes"):
        messages.next()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Retry(), Retry()),
        (Retry(2.5), Retry(2.5)),
        (Snooze(3), Snooze(3)),
        (Reject("never"), Reject("never")),
        (ExceptionGroup("", [ExceptionGroup("", [Snooze(3)])]), Snooze(3)),
        (ExceptionGroup("", [ValueError("x"), Reject("never")]), Reject("never")),
    ],
)
def test_what_was_asked_for_comes_back_as_itself(raised: Exception, expected: Exception) -> None:
    back = error_of(facts_of(raised))
    assert type(back) is type(expected)
    assert str(back) == str(expected)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("raised", "type_name", "text"),
    [
        (ValueError("a"), "ValueError", "a"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (SystemExit(3), "SystemExit", "3"),
        (Unspeakable(), "Unspeakable", "its text cannot be had: RuntimeError"),
        (ValueError("half a pair: \ud800"), "ValueError", "half a pair: \ud800"),
    ],
)
def test_whatever_else_was_raised_is_told_by_name_text_and_traceback(
    raised: BaseException, type_name: str, text: str
) -> None:
    back = error_of(facts_of(raised))
    assert isinstance(back, RemoteError)
    assert (back.type_name, back.text) == (type_name, text)
    assert type_name in back.traceback
    assert type_name in "".join(back.__notes__)


def test_a_long_text_is_cut() -> None:
    facts = facts_of(ValueError("x" * 1_000_000))
    assert len(as_message(facts)) < 1_000_000
