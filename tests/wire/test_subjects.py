"""What may be published to and subscribed to: everything that the server would take in silence the wrong way is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

from nats_jobs.errors import BadSubject
from nats_jobs.wire import check_publish_subject, check_subscribe_subject, unique_token
from nats_jobs.wire._subjects import check_line, check_queue, publishable

tokens = st.lists(
    st.text("abcÄ$_-1>*", min_size=1, max_size=5).filter(lambda t: t not in "*>"), min_size=1, max_size=5
)


@given(tokens.map(".".join))
def test_a_subject_of_whole_tokens_is_good_for_both(subject: str) -> None:
    assert check_publish_subject(subject) == subject
    assert check_subscribe_subject(subject) == subject


@pytest.mark.parametrize(
    "subject", ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nPUB b 0", "a\x00", "\ud800"]
)
def test_what_no_line_can_carry_is_refused_for_both(subject: str) -> None:
    for check in (check_publish_subject, check_subscribe_subject):
        with pytest.raises(BadSubject) as caught:
            check(subject)

        assert repr(subject) in str(caught.value)


@pytest.mark.parametrize("subject", ["*", ">", "a.*", "a.>", "*.a", "a.*.b"])
def test_wildcards_are_for_subscriptions_only(subject: str) -> None:
    assert check_subscribe_subject(subject) == subject
    with pytest.raises(BadSubject, match="wildcard"):
        check_publish_subject(subject)


@pytest.mark.parametrize("subject", [">.a", "a.>.b"])
def test_the_rest_can_only_come_last(subject: str) -> None:
    with pytest.raises(BadSubject, match="last token"):
        check_subscribe_subject(subject)


def test_a_line_that_would_make_the_server_close_is_refused() -> None:
    assert check_publish_subject("a" * 4000)
    for check in (check_publish_subject, check_subscribe_subject, check_queue):
        with pytest.raises(BadSubject, match="bytes"):
            check("ä" * 2001)

    with pytest.raises(BadSubject, match="4001 bytes"):
        check_line("a" * 2000, "b" * 2001)


@pytest.mark.parametrize("queue", ["a b", "a\t", "a\r\n", "\ud800"])
def test_a_queue_name_has_no_blanks(queue: str) -> None:
    with pytest.raises(BadSubject):
        check_queue(queue)


def test_no_queue_is_a_queue_too() -> None:
    assert check_queue("") == ""


def test_tokens_are_never_the_same() -> None:
    made = {unique_token() for _ in range(10_000)}
    assert len(made) == 10_000
    assert all(check_publish_subject(token) for token in list(made)[:100])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_other_tokens_than_its_parent() -> None:
    reading, writing = os.pipe()
    # A program of its own does the forking: this one may have threads.
    program = (
        "import os; from nats_jobs.wire import unique_token; "
        f"os.fork(); os.write({writing}, unique_token().encode())"
    )
    subprocess.run([sys.executable, "-c", program], check=True, pass_fds=[writing])
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()

    assert len(text) == 44
    assert text[:22] != text[22:]


def test_lines_of_many_subjects_do_not_pile_up() -> None:
    for number in range(5000):
        assert publishable[f"line.{number}"] == b"PUB line.%d " % number

    assert len(publishable) <= 1024
    with pytest.raises(BadSubject):
        publishable["a..b"]
