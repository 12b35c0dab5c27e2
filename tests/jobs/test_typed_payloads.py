"""Payloads of a type of the user's on their way: made before the handler runs, or parked with the validator's words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from nats_jobs import Job, JobDef, codecs, job_processor
from nats_jobs.errors import EncodeError, UsageError
from support.jobs import until_empty
from support.letters import letters_of

pytestmark = pytest.mark.anyio


@dataclass
class Order:
    number: int


def taking_orders(stream: str, taken: list[Order]) -> JobDef[Order]:
    async def take(job: Job[Order]) -> None:
        taken.append(job.payload)

    return JobDef(stream=stream, perform=take, codec=codecs.typed(Order), num_attempts=3)


async def test_a_handler_is_given_the_type_from_whatever_format_it_comes_in(url: str, name: str) -> None:
    taken: list[Order] = []
    defn = taking_orders(name, taken)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, Order(1))
        await p.js.publish(name, codecs.MSGPACK.encode({"number": 2}))
        await p.js.publish(name, b'{"number": 3}', headers={"Content-Type": "application/json"})
        await until_empty(p.js, name)
        p.stop_soon()

    assert sorted(order.number for order in taken) == [1, 2, 3]
    assert all(type(order) is Order for order in taken)


async def test_what_does_not_make_one_is_parked_at_once_with_the_words_of_the_validator(
    url: str, name: str
) -> None:
    taken: list[Order] = []
    defn = taking_orders(name, taken)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.js.publish(name, b'{"number": "three"}', headers={"Content-Type": "application/json"})
        await until_empty(p.js, name)
        [letter] = await letters_of(p, name)
        p.stop_soon()

    assert (letter.reason, letter.attempts, taken) == ("undecodable", 1, [])
    assert "Order in json: Expected `int`, got `str` - at `$.number`" in letter.error


async def test_what_is_not_of_the_type_is_not_enqueued(url: str, name: str) -> None:
    defn = taking_orders(name, [])
    async with job_processor(url) as p:
        with pytest.raises(EncodeError, match="dict is not Order"):
            await p.enqueue(defn, {"number": 1})  # type: ignore[arg-type]
        with pytest.raises(EncodeError, match="int"):
            await p.enqueue_many(defn, [Order(1), Order("two")])  # type: ignore[arg-type]


async def test_a_content_type_that_the_bytes_do_not_have_is_refused(url: str, name: str) -> None:
    defn = taking_orders(name, [])
    async with job_processor(url) as p:
        with pytest.raises(UsageError, match="encoded as Order in msgpack"):
            await p.enqueue(defn, Order(1), headers={"Content-Type": "application/json"})
        await p.start(defn)
        await p.enqueue(defn, Order(1), headers={"Content-Type": "application/msgpack"})
        await until_empty(p.js, name)
        p.stop_soon()
