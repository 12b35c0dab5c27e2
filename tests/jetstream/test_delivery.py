"""A delivery: what its ack subject tells, and that it is settled once, with the answer the server understands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from nats.js.client import JetStreamContext

from nats_jobs.errors import NoResponders, UsageError
from nats_jobs.jetstream import ACK, Delivery, Settlement, jetstream_context, reply_error
from nats_jobs.jetstream._delivery import is_delivery
from nats_jobs.wire import Connection, Msg, connect
from support.jobs import LIMIT, in_stream
from support.settling import extend, settle

# A name as the server takes it.
NAME = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
NUMBER = st.integers(1, 2**63 - 1)


def delivery_of(reply: str) -> Delivery:
    no_connection: Any = None
    return Delivery(no_connection, Msg("jobs.a", 3, reply, b"", b"data"), 1.5)


@given(NAME, NAME, NUMBER, NUMBER, NUMBER, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_the_short_form_of_the_ack_subject(
    stream: str, consumer: str, attempt: int, sequence: int, position: int, stored: int, pending: int
) -> None:
    numbers = f"{attempt}.{sequence}.{position}.{stored}.{pending}"
    delivery = delivery_of(f"$JS.ACK.{stream}.{consumer}.{numbers}")

    assert (delivery.stream, delivery.consumer) == (stream, consumer)
    assert (delivery.attempt, delivery.sequence) == (attempt, sequence)
    assert delivery.pending == pending
    assert delivery.stored_at.timestamp() == pytest.approx(stored / 1e9, abs=1e-3)
    assert delivery.stored_at.tzinfo is UTC


@given(NAME | st.just("_"), NAME, NAME, NAME, NUMBER, NUMBER, st.lists(NAME, max_size=3))
def test_the_long_form_with_domain_and_account_and_whatever_comes_after_it(
    domain: str, account: str, stream: str, consumer: str, attempt: int, sequence: int, more: list[str]
) -> None:
    tokens = [
        domain,
        account,
        stream,
        consumer,
        str(attempt),
        str(sequence),
        "9",
        "1795457089718190066",
        "4",
        *more,
    ]
    delivery = delivery_of("$JS.ACK." + ".".join(tokens))

    assert (delivery.stream, delivery.consumer) == (stream, consumer)
    assert (delivery.attempt, delivery.sequence) == (attempt, sequence)
    assert delivery.pending == 4
    assert delivery.stored_at == datetime(2026, 11, 23, 18, 4, 49, 718190, UTC)


def test_what_came_with_it_is_kept() -> None:
    delivery = delivery_of("$JS.ACK.S.C.1.2.3.4.5")
    assert (delivery.subject, delivery.data, delivery.sent_not_before) == ("jobs.a", b"data", 1.5)
    assert repr(delivery) == 'Delivery(S/2, attempt 1, "jobs.a")'


def test_only_a_message_with_an_ack_subject_is_a_delivery() -> None:
    assert is_delivery(Msg("s", 1, "$JS.ACK.S.C.1.2.3.4.5", b"", b""))
    assert not is_delivery(Msg("s", 1, "", b"NATS/1.0 408 Request Timeout\r\n\r\n", b""))
    assert not is_delivery(Msg("s", 1, "_INBOX.a", b"", b""))


def test_the_answers_are_those_the_server_understands() -> None:
    assert ACK.body == b"+ACK"
    assert Settlement.nak().body == Settlement.nak(0).body == b"-NAK"
    assert Settlement.nak(0.7).body == b'-NAK {"delay": 700000000}'
    assert Settlement.term().body == b"+TERM"
    assert Settlement.term("no\r\nsuch  customer").body == b"+TERM no such customer"


def test_a_reply_confirms_unless_it_says_that_nobody_listens() -> None:
    assert reply_error(Msg("i", 1, "", b"", b"")) is None
    nobody = Msg("i", 1, "", b"NATS/1.0 503\r\n\r\n", b"")
    assert isinstance(reply_error(nobody), NoResponders)


# On a real server...


class Place:
    """A work queue with one consumer, and a way to get the next delivery."""

    def __init__(self, connection: Connection, js: JetStreamContext, name: str) -> None:
        self.connection = connection
        self.js = js
        self.name = name

    async def next(self) -> Delivery:
        inbox = self.connection.new_inbox()
        async with self.connection.subscribe(inbox) as replies:
            await self.connection.publish(f"$JS.API.CONSUMER.MSG.NEXT.{self.name}.c", b'{"batch":1}', inbox)
            with anyio.fail_after(LIMIT):
                return Delivery(self.connection, await replies.receive(), 0.0)


@asynccontextmanager
async def place(url: str, name: str, **consumer: Any) -> AsyncIterator[Place]:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        await js.add_stream(StreamConfig(name=name, retention=RetentionPolicy.WORK_QUEUE))
        config: dict[str, Any] = {
            "durable_name": "c",
            "ack_policy": AckPolicy.EXPLICIT,
            "ack_wait": 30.0,
            **consumer,
        }
        await js.add_consumer(name, ConsumerConfig(**config))
        await connection.publish(name, b"job", headers={"X": "y"})
        yield Place(connection, js, name)


@pytest.mark.anyio
class TestOnAServer:
    async def test_an_ack_removes_the_message(self, url: str, name: str) -> None:
        async with place(url, name) as at:
            delivery = await at.next()
            assert (delivery.stream, delivery.consumer, delivery.attempt, delivery.sequence) == (
                name,
                "c",
                1,
                1,
            )
            assert (delivery.data, dict(delivery.headers), delivery.has_headers) == (b"job", {"X": "y"}, True)
            await settle(delivery)
            assert await in_stream(at.js, name) == 0

    async def test_a_nak_brings_it_again_with_the_next_number(self, url: str, name: str) -> None:
        async with place(url, name) as at:
            await settle(await at.next(), Settlement.nak())
            again = await at.next()
            assert (again.attempt, again.sequence) == (2, 1)

    async def test_a_nak_with_a_delay_brings_it_later(self, url: str, name: str) -> None:
        async with place(url, name) as at:
            started = anyio.current_time()
            await settle(await at.next(), Settlement.nak(0.5))
            await at.next()
            assert anyio.current_time() - started >= 0.45

    async def test_a_term_ends_it_and_carries_its_reason(self, url: str, name: str) -> None:
        async with place(url, name) as at:
            advisories = f"$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.{name}.c"
            async with at.connection.subscribe(advisories) as told:
                await settle(await at.next(), Settlement.term("no such customer"))
                with anyio.fail_after(LIMIT):
                    assert b'"reason":"no such customer"' in (await told.receive()).data

            assert await in_stream(at.js, name) == 0

    async def test_extending_keeps_it_beyond_its_deadline(self, url: str, name: str) -> None:
        async with place(url, name, ack_wait=1.0) as at:
            delivery = await at.next()
            for _ in range(6):
                await anyio.sleep(0.3)
                await extend(delivery)

            await settle(delivery)
            assert (await at.js.consumer_info(name, "c")).num_redelivered == 0

    async def test_it_is_settled_once_and_only_the_same_answer_may_be_repeated(
        self, url: str, name: str
    ) -> None:
        async with place(url, name) as at:
            delivery = await at.next()
            await settle(delivery)
            await settle(delivery)
            for other in (Settlement.nak(), Settlement.term(), Settlement.nak(1.0)):
                with pytest.raises(UsageError, match=f"{name}/1 is settled already"):
                    await settle(delivery, other)

    async def test_a_nak_with_another_delay_is_another_answer(self, url: str, name: str) -> None:
        async with place(url, name) as at:
            delivery = await at.next()
            await settle(delivery, Settlement.nak(60))
            await settle(delivery, Settlement.nak(60))
            with pytest.raises(UsageError, match="settled already"):
                await settle(delivery, Settlement.nak())

    async def test_an_answer_for_a_consumer_that_is_gone_is_not_confirmed(self, url: str, name: str) -> None:
        async with place(url, name) as at:
            delivery = await at.next()
            await at.js.delete_consumer(name, "c")
            with pytest.raises(NoResponders):
                await settle(delivery)

            with pytest.raises(NoResponders):
                await extend(delivery)

    async def test_the_longest_delay_is_a_delay(self, url: str, name: str) -> None:
        async with place(url, name) as at:
            await settle(await at.next(), Settlement.nak(1e10))
            with anyio.move_on_after(1) as waited:
                await at.next()

            assert waited.cancelled_caught
