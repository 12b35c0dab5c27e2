"""A model of one connection and of a server that misbehaves at any time: the books of both agree in the end.

Where test_strange_servers.py only asks that nobody waits for ever, this one knows what must be true: which
subscriptions stand, that nothing is published twice or in halves, that each subscription gets what it was sent
in order, and that neither the books nor what is queued grows. `NATS_JOBS_LONG=1` plays more; `nox -s wire` does.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nats_jobs.errors import NatsJobsError
from nats_jobs.wire import Connection, Subscription, connect
from support.connections import LIMIT, quick, until
from support.puppet import Puppet, PuppetLink, puppet

EXAMPLES = 60 if os.environ.get("NATS_JOBS_LONG") else 6
STEPS = 25
LIVING = 4
BACKENDS: list[tuple[str, dict[str, Any]]] = [
    ("asyncio", {}),
    ("asyncio", {"use_uvloop": True}),
    ("trio", {}),
]

nonsense = st.one_of(
    st.binary(max_size=40).filter(lambda data: b"MSG" not in data.upper()),
    st.sampled_from([b"x" * 70_000, b"PONG\r\n" * 50, b"+OK\r\n", b"INFO " + b"[" * 60_000 + b"\r\n"]),
)
complaints = st.sampled_from(
    [
        "Stale Connection",
        "Invalid Publish Subject",
        'Permissions Violation for Publish to "nobody.home"',
        'Permissions Violation for Subscription to "nobody.home"',
        "a text that no server has said so far",
        "",
    ]
)


def _limits_nothing(fields: dict[str, Any]) -> bool:
    limit = fields.get("max_payload")
    return not isinstance(limit, int) or limit <= 0


values: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3)
)
infos = st.dictionaries(
    st.sampled_from(["max_payload", "connect_urls", "headers", "version"]) | st.text(max_size=5),
    values,
    max_size=4,
).filter(_limits_nothing)


class Heard:
    """A subscription, what the server sent to it, and what of that came."""

    def __init__(self, subscription: Subscription, block: AbstractContextManager[Any]) -> None:
        self.subscription = subscription
        self.block = block
        self.sent: list[bytes] = []
        self.came: list[bytes] = []

    async def take(self) -> None:
        while self.subscription.pending:
            self.came.append((await self.subscription.receive()).data)


class OneConnection(RuleBasedStateMachine):
    """What client and server may do, in any order."""

    backend = BACKENDS[0]

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.heard: list[Heard] = []
        self.blocks = ExitStack()
        backend, options = self.backend
        self.portal: BlockingPortal = self.blocks.enter_context(start_blocking_portal(backend, options))
        self.server: Puppet = self.blocks.enter_context(self.portal.wrap_async_context_manager(puppet()))
        self.tasks = self.portal.call(running_tasks)
        self.nc: Connection
        self.connection = self.portal.wrap_async_context_manager(
            connect(
                self.server.url,
                **quick(ping_interval=0.1, drain_timeout=1, reconnect_time_wait=0.02),
            )
        )
        self.nc = self.connection.__enter__()

    def ends(self, use: Callable[[], Awaitable[object]]) -> None:
        """Whatever is waited for ends, and if with an error then with one of ours."""
        self.portal.call(_ends, use)

    def on_link(self, act: Callable[[PuppetLink], Awaitable[None]]) -> None:
        """Let the server do something on the link that came last."""
        self.portal.call(_whatever_the_peer_does, act, self.server.links[-1])

    # The client...

    @precondition(lambda self: len(self.heard) < LIVING)
    @rule()
    def subscribe(self) -> None:
        block = self.portal.wrap_async_context_manager(self.nc.subscribe(f"heard.{next(self.numbers)}"))
        self.heard.append(Heard(block.__enter__(), block))

    @precondition(lambda self: self.heard)
    @rule(which=st.integers(0, LIVING))
    def leave_a_subscription(self, which: int) -> None:
        self.heard.pop(which % len(self.heard)).block.__exit__(None, None, None)

    @precondition(lambda self: self.heard)
    @rule(which=st.integers(0, LIVING))
    def drain_a_subscription(self, which: int) -> None:
        leaving = self.heard.pop(which % len(self.heard))
        self.ends(leaving.subscription.drain)
        leaving.block.__exit__(None, None, None)

    @rule(count=st.integers(1, 20))
    def publish(self, count: int) -> None:
        async def send() -> None:
            for _ in range(count):
                await self.nc.publish("told", b"%d" % next(self.numbers), timeout=LIMIT)

        self.ends(send)

    @rule(answered=st.booleans())
    def request(self, answered: bool) -> None:
        async def ask() -> None:
            self.server.answering = answered
            reply = await self.nc.request("asked", b"mine", timeout=LIMIT if answered else 0.1)
            assert reply.data == b"mine"

        self.ends(ask)

    @rule()
    def flush(self) -> None:
        self.ends(self.nc.flush)

    # The server...

    @precondition(lambda self: self.heard)
    @rule(which=st.integers(0, LIVING))
    def send_a_message(self, which: int) -> None:
        heard, data = self.heard[which % len(self.heard)], b"%d" % next(self.numbers)
        heard.sent.append(data)
        self.on_link(lambda link: link.tell(heard.subscription.subject, data))

    @rule(reset=st.booleans())
    def lose_the_link(self, reset: bool) -> None:
        self.on_link(lambda link: link.leave(reset=reset))

    @rule(count=st.integers(1, 3))
    def turn_away_who_comes_next(self, count: int) -> None:
        self.server.turned_away = count

    @rule()
    def go_deaf(self) -> None:
        self.server.links[-1].deaf = True

    @rule(data=nonsense)
    def talk_nonsense(self, data: bytes) -> None:
        self.on_link(lambda link: link.say(data))

    @rule()
    def lie_about_a_length(self) -> None:
        self.on_link(lambda link: link.say(b"MSG nobody 99 1000000\r\n"))

    @rule(text=complaints)
    def complain(self, text: str) -> None:
        self.on_link(lambda link: link.say(f"-ERR '{text}'\r\n".encode()))

    @rule(fields=infos)
    def inform(self, fields: dict[str, Any]) -> None:
        self.on_link(lambda link: link.say(f"INFO {json.dumps(fields)}\r\n".encode()))

    # What is true at any time...

    @invariant()
    def the_client_says_nothing_wrong(self) -> None:
        assert self.server.wrong == []

    @invariant()
    def nothing_is_published_twice(self) -> None:
        for link in self.server.links:
            assert link.published == sorted(link.published, key=int)

        published = [data for link in self.server.links for data in link.published]
        assert len(published) == len(set(published))

    @invariant()
    def what_is_heard_was_sent_in_that_order(self) -> None:
        for heard in self.heard:
            self.portal.call(heard.take)
            sent = iter(heard.sent)
            assert all(data in sent for data in heard.came)

    @invariant()
    def the_books_do_not_grow(self) -> None:
        assert len(self.nc.lowlevel.requests) == 0
        assert len(self.nc.lowlevel.subscriptions) == 1 + len(self.heard)
        link = self.nc.lowlevel.link
        if link is not None:
            assert len(link._owed) < 300
            assert link._outbox.queued < 100_000

    # And in the end...

    def teardown(self) -> None:
        try:
            self.portal.call(self._calm_down)
            for heard in self.heard:
                heard.block.__exit__(None, None, None)

            self.connection.__exit__(None, None, None)
            self.portal.call(until, lambda: self.server.open == 0)
            assert self.portal.call(running_tasks) == self.tasks
        finally:
            self.blocks.close()

    async def _calm_down(self) -> None:
        """The server behaves from now on: its books are the client's, and every message arrives."""
        self.server.turned_away = 0
        expected = {heard.subscription.subject for heard in self.heard}
        await until(lambda: expected == self._listened())
        for heard in self.heard:
            await self._arrives(heard)

    def _listened(self) -> set[str]:
        return {subject for subject in self.server.links[-1].subjects.values() if not subject.endswith("*")}

    async def _arrives(self, heard: Heard) -> None:
        with anyio.fail_after(LIMIT):
            while True:
                await _whatever_the_peer_does(
                    lambda link: link.tell(heard.subscription.subject, b"the last"), self.server.links[-1]
                )
                with anyio.move_on_after(0.1):
                    while (await heard.subscription.receive()).data != b"the last":
                        pass

                    return


async def running_tasks() -> int:
    return len(anyio.get_running_tasks())


async def _ends(use: Callable[[], Awaitable[object]]) -> None:
    try:
        with anyio.fail_after(LIMIT):
            await use()
    except NatsJobsError:
        pass


async def _whatever_the_peer_does(act: Callable[[PuppetLink], Awaitable[None]], link: PuppetLink) -> None:
    try:
        await act(link)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        # The client has gone meanwhile.
        pass


@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", BACKENDS, ids=["asyncio", "uvloop", "trio"])
def test_whatever_both_sides_do_their_books_agree_in_the_end(backend: tuple[str, dict[str, Any]]) -> None:
    machine = type("OneConnection", (OneConnection,), {"backend": backend})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.filter_too_much,
                HealthCheck.data_too_large,
            ],
        ),
    )
