"""The puller in virtual time, on a server in memory: since when a delivery counts, and what it does about silence and refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from nats_jobs._clock import running_clock
from nats_jobs.jetstream import Delivery, JetStreamApi, Puller
from nats_jobs.wire import Connection, Msg
from support.fake_link import FakeLink, FakeServer
from support.virtual_time import anyio_backend as anyio_backend, pause

pytestmark = pytest.mark.anyio


class Counter:
    """A puller at a counter of the server, whose deliveries are kept."""

    def __init__(self) -> None:
        clock = running_clock()
        self.server = FakeServer(clock)
        self.link: FakeLink = self.server.link("counter")
        self.got: list[Delivery] = []
        self.puller = Puller(
            JetStreamApi(cast(Connection, self.link)),
            self.server.stream,
            self.server.consumer,
            expires=60.0,
            clock=clock,
            on_delivery=self.got.append,
            on_ready=self._ready,
            on_trouble=self._trouble,
        )
        self.begun: list[float] = []
        self.asks_when_ready = 0
        self.troubles = 0

    def _trouble(self) -> None:
        self.troubles += 1

    def _ready(self) -> None:
        self.begun.append(self.server.clock())
        self.puller.pull(self.asks_when_ready)

    def publish(self) -> None:
        self.server.publish()

    async def receipt(self) -> tuple[float, float]:
        """Wait for the first delivery; return when the server made it, and since when it counts here."""
        with anyio.fail_after(30):
            while not self.got:
                await anyio.sleep(0.05)

        return self.server.delivered[0].at, self.got[0].sent_not_before


@asynccontextmanager
async def counter() -> AsyncIterator[Counter]:
    built = Counter()
    async with anyio.create_task_group() as group:
        group.start_soon(built.server.run)
        await group.start(built.puller.run)
        yield built
        group.cancel_scope.cancel("the test is over")


@pytest.mark.parametrize("delay", [0.0, 0.3, 2.0])
async def test_a_delivery_counts_from_not_later_than_it_was_made(delay: float) -> None:
    async with counter() as at:
        at.link.delay_in = delay
        at.puller.pull(1)
        await anyio.sleep(5)
        at.publish()
        made, counts_from = await at.receipt()
        assert made - 2 <= counts_from <= made


async def test_a_delivery_that_waited_through_a_pause_counts_from_before_it() -> None:
    async with counter() as at:
        at.puller.pull(1)
        await anyio.sleep(5)
        at.server.at(anyio.current_time() + 0.1, at.publish)
        pause(5)
        made, counts_from = await at.receipt()
        assert counts_from <= made


async def test_a_delivery_counts_from_not_earlier_than_it_was_asked_for() -> None:
    """What was under way before tells less, the more so after a pause."""
    async with counter() as at:
        at.publish()
        at.link.delay_in = 2.0
        await anyio.sleep(5.2)
        asked_at = anyio.current_time()
        at.puller.pull(1)
        made, counts_from = await at.receipt()
        assert counts_from == asked_at <= made


async def test_a_delivery_may_be_the_answer_to_the_first_of_several_requests() -> None:
    async with counter() as at:
        at.link.delay_in = 2.0
        at.puller.pull(1)
        at.publish()
        await anyio.sleep(1)
        at.puller.pull(1)
        made, counts_from = await at.receipt()
        assert counts_from <= made


# Silence and refusals...


async def test_a_request_of_which_nothing_is_heard_is_thought_dead_after_two_heartbeats() -> None:
    async with counter() as at:
        at.asks_when_ready = 1
        at.link.swallow = True
        asked_at = anyio.current_time()
        at.puller.pull(1)
        await anyio.sleep(5.9)
        assert len(at.begun) == 1
        await anyio.sleep(5)
        assert len(at.begun) == 2
        at.link.swallow = False
        await anyio.sleep(10)
        at.publish()
        await at.receipt()
        assert anyio.current_time() < asked_at + 30


async def test_heartbeats_keep_a_request_alive() -> None:
    async with counter() as at:
        at.puller.pull(1)
        await anyio.sleep(50)
        assert len(at.begun) == 1
        assert at.puller.outstanding == 1


async def test_without_requests_silence_means_nothing() -> None:
    async with counter() as at:
        await anyio.sleep(1000)
        assert len(at.begun) == 1


async def test_a_refusal_that_may_pass_is_followed_by_another_request_and_not_by_a_storm() -> None:
    async with counter() as at:
        at.asks_when_ready = 1
        at.server.has_leader = False
        at.puller.pull(1)
        await anyio.sleep(20)
        # A second lies between two of them in the end.
        assert 15 < len(at.begun) < 60
        at.server.has_leader = True
        at.publish()
        await at.receipt()
        assert len(at.server.delivered) == 1


async def test_between_a_refusal_and_the_new_beginning_nothing_is_asked_for() -> None:
    """It would be answered to an inbox that nobody reads."""
    async with counter() as at:
        at.server.has_leader = False
        at.puller.pull(1)
        at.server.catch_up()
        at.link.read()
        assert at.puller.pull(1) == 0
        assert len(at.begun) == 1


async def test_what_is_said_about_requests_that_were_taken_back_is_no_matter() -> None:
    async with counter() as at:
        at.puller.pull(1)
        await anyio.sleep(1)
        at.puller.cancel_requests()
        status = Msg(at.puller._inbox.subject, 0, "", b"NATS/1.0 409 Consumer Deleted\r\n\r\n", b"")
        at.link.arrive(at.link.epoch, status)
        await anyio.sleep(1)
        assert len(at.begun) == 1


async def test_closing_waits_for_what_is_under_way() -> None:
    async with counter() as at:
        at.link.delay_in = 0.5
        at.puller.pull(1)
        at.publish()
        await at.puller.close()
        assert len(at.got) == 1
