"""The books of outstanding requests: each is answered once or forgotten, whatever comes in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from nats_jobs.errors import ConnectionLost, NoResponders, PermissionDenied
from nats_jobs.wire import Msg, unwrap_reply
from nats_jobs.wire._request_mux import RequestMux

subjects = st.sampled_from(["a", "b", "c"])


class Books(RuleBasedStateMachine):
    """`expected` is what each open request must still get: nothing so far."""

    opened = Bundle("opened")

    def __init__(self) -> None:
        super().__init__()
        self.requests = RequestMux("_INBOX")
        self.open: dict[str, str] = {}
        self.replies: dict[str, list[Any]] = {}
        self.barred = False

    @rule(target=opened, subject=subjects)
    def ask(self, subject: str) -> str:
        replies: list[Any] = []
        try:
            reply_subject = self.requests.register(subject, replies.append)
        except PermissionDenied:
            assert self.barred
            return ""

        assert not self.barred
        assert reply_subject not in self.replies
        self.open[reply_subject] = subject
        self.replies[reply_subject] = replies
        return reply_subject

    @rule(reply_subject=opened)
    def answer(self, reply_subject: str) -> None:
        before = len(self.replies.get(reply_subject, ()))
        self.requests.deliver(Msg(reply_subject, 1, "", b"", b"x"))
        if self.open.pop(reply_subject, None) is not None:
            assert len(self.replies[reply_subject]) == before + 1

    @rule(reply_subject=consumes(opened))
    def forget(self, reply_subject: str) -> None:
        self.requests.cancel(reply_subject)
        self.open.pop(reply_subject, None)

    @rule(subject=subjects)
    def refuse(self, subject: str) -> None:
        self.requests.fail(subject, PermissionDenied(subject, "no"))
        self.open = {reply: asked for reply, asked in self.open.items() if asked != subject}

    @rule(reply_subject=opened)
    def refuse_reply(self, reply_subject: str) -> None:
        self.requests.fail_reply(reply_subject, PermissionDenied(reply_subject, "no"))
        self.open.pop(reply_subject, None)

    @rule()
    def lose(self) -> None:
        self.requests.fail_all(ConnectionLost("server", "cut"))
        self.open.clear()

    @rule()
    def bar(self) -> None:
        self.requests.deny_inbox(PermissionDenied("x", "no"))
        self.open.clear()
        self.barred = True

    @rule()
    def admit(self) -> None:
        self.requests.reset()
        self.barred = False

    @invariant()
    def every_request_is_open_or_was_called_at_most_once(self) -> None:
        assert len(self.requests) == len(self.open)
        for reply_subject, replies in self.replies.items():
            assert len(replies) <= (reply_subject not in self.open)


TestBooks = Books.TestCase


def test_replies_to_others_are_passed_over() -> None:
    requests = RequestMux("_INBOX")
    requests.register("a", lambda reply: pytest.fail(f"got {reply}"))
    requests.deliver(Msg("somewhere.else", 1, "", b"", b""))
    requests.fail_reply("_INBOX.other.1", PermissionDenied("x", "no"))
    requests.cancel("")
    assert len(requests) == 1


@pytest.mark.anyio
async def test_waiting_ends_with_the_last_request_however_it_ends() -> None:
    requests = RequestMux("_INBOX")
    await requests.wait_all_answered()
    first, second, _ = (requests.register(subject, lambda reply: None) for subject in "aab")
    order: list[str] = []

    async def wait() -> None:
        await requests.wait_all_answered()
        order.append("all answered")

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        requests.deliver(Msg(first, 1, "", b"", b""))
        requests.cancel(second)
        await anyio.wait_all_tasks_blocked()
        assert not order
        requests.fail("b", PermissionDenied("b", "no"))

    assert order == ["all answered"] * 2


LAST: dict[str, Callable[[RequestMux, str], None]] = {
    "answered": lambda requests, reply: requests.deliver(Msg(reply, 1, "", b"", b"")),
    "forgotten": lambda requests, reply: requests.cancel(reply),
    "refused": lambda requests, reply: requests.fail("a", PermissionDenied("a", "no")),
    "refused for its reply subject": lambda requests, reply: requests.fail_reply(
        reply, PermissionDenied("a", "no")
    ),
    "without a link": lambda requests, reply: requests.fail_all(ConnectionLost("server", "cut")),
}


@pytest.mark.anyio
@pytest.mark.parametrize("how", LAST)
async def test_waiting_ends_however_the_last_request_ends(how: str) -> None:
    requests = RequestMux("_INBOX")
    reply = requests.register("a", lambda reply: None)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(requests.wait_all_answered)
            await anyio.wait_all_tasks_blocked()
            LAST[how](requests, reply)


def test_an_error_that_many_got_is_raised_as_a_copy_for_each() -> None:
    error = ConnectionLost("server", "cut")
    for _ in range(2):
        with pytest.raises(ConnectionLost) as caught:
            unwrap_reply(error, "a")

        assert caught.value is not error
        assert str(caught.value) == str(error)


def test_a_503_without_data_means_that_nobody_listens() -> None:
    with pytest.raises(NoResponders, match="'a'"):
        unwrap_reply(Msg("r", 1, "", b"NATS/1.0 503\r\n\r\n", b""), "a")

    answered = Msg("r", 1, "", b"NATS/1.0 503\r\n\r\n", b"data")
    assert unwrap_reply(answered, "a") is answered
