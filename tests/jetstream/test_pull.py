"""The puller: what it asks for arrives, what it takes back is not lost, and it notices when nothing can come."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from nats.js.api import RetentionPolicy, StreamConfig
from nats.js.client import JetStreamContext

from nats_jobs._clock import running_clock
from nats_jobs.errors import ConsumerGone, PullRefused, RequestTimeout, UsageError
from nats_jobs.jetstream import Delivery, JetStreamApi, Puller, Settlement, jetstream_context
from nats_jobs.server import run_server
from nats_jobs.wire import Connection, connect
from support.jobs import LIMIT, until
from support.settling import settle

pytestmark = pytest.mark.anyio


class Station:
    """A stream, a consumer, and a puller whose deliveries are kept."""

    def __init__(self, connection: Connection, js: JetStreamContext, name: str, expires: float) -> None:
        self.connection = connection
        self.js = js
        self.name = name
        self.got: list[Delivery] = []
        self.readies = 0
        self.troubles = 0
        self.puller = Puller(
            JetStreamApi(connection),
            name,
            "c",
            expires=expires,
            clock=running_clock(),
            on_delivery=self.got.append,
            on_ready=self._ready,
            on_trouble=self._trouble,
        )

    def _trouble(self) -> None:
        self.troubles += 1

    def _ready(self) -> None:
        self.readies += 1

    async def ready(self, times: int = 1) -> None:
        await until(lambda: self.readies >= times)

    async def fill(self, count: int) -> None:
        for number in range(count):
            await self.js.publish(self.name, str(number).encode())

    async def info(self) -> dict[str, Any]:
        reply = await self.connection.request(f"$JS.API.CONSUMER.INFO.{self.name}.c")
        return dict(json.loads(reply.data))

    async def until_info(self, **expected: int) -> None:
        """The server takes requests and answers in no fixed order: wait until it shows what is expected."""

        async def shown() -> bool:
            return (await self.info()).items() >= expected.items()

        await until(shown)


@asynccontextmanager
async def station(url: str, name: str, *, expires: float = 30.0, **consumer: Any) -> AsyncIterator[Station]:
    async with connect(url, reconnect_time_wait=0.1) as connection:
        js = jetstream_context(connection)
        await js.add_stream(StreamConfig(name=name, retention=RetentionPolicy.LIMITS))
        config = {"durable_name": "c", "ack_policy": "explicit", "ack_wait": 30 * 10**9} | consumer
        body = {"stream_name": name, "config": config}
        reply = await connection.request(f"$JS.API.CONSUMER.CREATE.{name}.c", json.dumps(body).encode())
        assert b'"error"' not in reply.data, reply.data
        yield Station(connection, js, name, expires)


@asynccontextmanager
async def running(at: Station) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(at.puller.run)
        await at.ready()
        yield
        group.cancel_scope.cancel()


async def test_what_was_asked_for_arrives_and_no_more(url: str, name: str) -> None:
    async with station(url, name) as at, running(at):
        await at.fill(5)
        assert at.puller.pull(3) == 3
        await until(lambda: len(at.got) == 3)
        assert at.puller.outstanding == 0
        await at.until_info(num_ack_pending=3, num_pending=2, num_waiting=0)
        assert [delivery.data for delivery in at.got] == [b"0", b"1", b"2"]


async def test_a_request_waits_at_the_server_for_messages_to_come(url: str, name: str) -> None:
    async with station(url, name) as at, running(at):
        at.puller.pull(2)
        await at.until_info(num_waiting=1)
        await at.fill(1)
        await until(lambda: len(at.got) == 1)
        assert at.puller.outstanding == 1


async def test_a_request_that_expires_is_no_longer_outstanding_and_may_be_repeated(
    url: str, name: str
) -> None:
    async with station(url, name, expires=1.0) as at, running(at):
        at.puller.pull(5)
        await at.ready(2)
        assert at.puller.outstanding == 0
        at.puller.pull(1)
        await at.fill(1)
        await until(lambda: at.got)


async def test_nothing_is_asked_for_before_it_runs_after_it_was_closed_or_for_less_than_one(
    url: str, name: str
) -> None:
    async with station(url, name) as at:
        assert at.puller.pull(1) == 0
        async with running(at):
            assert at.puller.pull(0) == 0
            assert at.puller.pull(-1) == 0

        await at.puller.close()
        assert at.puller.pull(1) == 0
        await at.until_info(num_waiting=0)


async def test_closing_takes_every_request_back(url: str, name: str) -> None:
    async with station(url, name) as at:
        async with running(at):
            for _ in range(3):
                at.puller.pull(2)

            await at.until_info(num_waiting=3)

        await at.puller.close()
        await at.until_info(num_waiting=0)
        await at.fill(1)
        await at.until_info(num_pending=1, num_ack_pending=0)


async def test_what_is_under_way_while_it_closes_is_still_taken(url: str, name: str) -> None:
    """Nothing is read between the request and its end: whatever the server sends comes during the close.

    The server may forget the request before it looks at it, or count messages as delivered that it throws away
    because their inbox has gone meanwhile (seen on 2.15): so it is tried until it does neither.
    """
    for number in range(30):
        async with station(url, f"{name}-{number}") as at:
            await at.fill(100)
            async with running(at):
                at.puller.pull(100)

            await at.puller.close()
            await at.until_info(num_waiting=0)
            if at.got and (await at.info())["num_ack_pending"] == len(at.got):
                return

    pytest.fail("in no try was all taken that the server had delivered")


async def test_closing_without_a_link_ends(name: str) -> None:
    async with run_server() as server, station(server.url, name) as at:
        async with running(at):
            at.puller.pull(1)
            server.kill()
            await server.wait_exited()

        with anyio.fail_after(LIMIT):
            await at.puller.close()


async def test_after_a_restart_of_the_server_it_asks_anew_on_a_fresh_inbox(name: str) -> None:
    async with run_server() as server, station(server.url, name) as at, running(at):
        at.puller.pull(2)
        await at.until_info(num_waiting=1)
        inbox = at.puller._inbox
        server.kill()
        await server.restart()
        await at.ready(2)
        assert at.puller._inbox != inbox
        assert at.puller.outstanding == 0
        assert at.puller.pull(1) == 1
        await at.fill(2)
        await until(lambda: at.got)
        await at.until_info(num_waiting=0)
        assert len(at.got) == 1


async def test_a_consumer_that_is_deleted_while_a_request_waits_is_gone(url: str, name: str) -> None:
    async with station(url, name) as at:
        with pytest.raises(ExceptionGroup) as failed, anyio.fail_after(LIMIT):
            async with running(at):
                at.puller.pull(1)
                await at.until_info(num_waiting=1)
                await at.js.delete_consumer(name, "c")
                await anyio.sleep_forever()

        (gone,) = failed.value.exceptions
        assert isinstance(gone, ConsumerGone)
        assert (gone.stream, gone.consumer) == (name, "c")
        assert "deleted" in str(gone)


async def test_a_request_to_a_consumer_that_was_deleted_is_a_trouble_that_who_finds_out_can_end(
    url: str, name: str
) -> None:
    gone = ConsumerGone(name, "c", "it does not exist any more")
    async with station(url, name) as at:
        with pytest.raises(ExceptionGroup) as failed, anyio.fail_after(LIMIT):
            async with running(at):
                await at.js.delete_stream(name)
                at.puller.pull(1)
                await until(lambda: at.troubles > 0)
                at.puller.end(gone)
                await anyio.sleep_forever()

        assert failed.value.exceptions == (gone,)


async def test_a_limit_of_the_consumer_on_requests_is_kept_from_then_on(url: str, name: str) -> None:
    async with station(url, name, max_batch=3) as at, running(at):
        await at.fill(5)
        assert at.puller.pull(10) == 10
        await at.ready(2)
        assert at.puller.max_batch == 3
        assert at.puller.pull(10) == 3
        await until(lambda: len(at.got) == 3)


async def test_a_consumer_that_does_not_let_a_request_wait_so_long_is_refused(url: str, name: str) -> None:
    async with station(url, name, max_expires=10**9) as at:
        with pytest.raises(ExceptionGroup) as failed, anyio.fail_after(LIMIT):
            async with running(at):
                at.puller.pull(1)
                await anyio.sleep_forever()

        (refused,) = failed.value.exceptions
        assert isinstance(refused, PullRefused)
        assert "MaxRequestExpires" in str(refused)


async def test_a_suspicion_that_is_unfounded_only_begins_anew(url: str, name: str) -> None:
    async with station(url, name) as at, running(at):
        at.puller.pull(1)
        at.puller.recheck_consumer(RequestTimeout("$JS.ACK", 5.0))
        assert at.puller.pull(1) == 0
        await at.ready(2)
        at.puller.pull(1)
        await at.fill(2)
        await until(lambda: at.got)
        await at.until_info(num_waiting=0)


async def test_a_delivery_can_be_settled_through_the_connection_it_came_by(url: str, name: str) -> None:
    async with station(url, name) as at, running(at):
        await at.fill(1)
        at.puller.pull(1)
        await until(lambda: at.got)
        await settle(at.got[0])
        with pytest.raises(UsageError):
            await settle(at.got[0], Settlement.nak())

        await at.until_info(num_ack_pending=0)
