"""The permissions in docker/nats/authorization.conf suffice for worker, producer and operator, and for no more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.js.api import ConsumerConfig, StreamConfig

from nats_jobs import Job, JobDef, JobProcessor, Reject, job_processor
from nats_jobs.errors import PermissionDenied
from nats_jobs.events import Complete, DeadLettered, ServerError, Working
from nats_jobs.server import run_server
from support.jobs import Seen

pytestmark = pytest.mark.anyio

STREAM = "ORDERS"
AUTHORIZATION = Path(__file__).parents[2] / "docker" / "nats" / "authorization.conf"
CLAIMS = f"nats_jobs.claims.{STREAM}.{STREAM}Consumer.x"
ADVISORY = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{STREAM}.{STREAM}Consumer"
LETTER = f"dead_letters.{STREAM}.{STREAM}"


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    for user in ("worker", "producer", "operator"):
        monkeypatch.setenv(f"{user.upper()}_PASSWORD", f"{user}-secret")


@asynccontextmanager
async def server_with(authorization: str, store: Path | None = None) -> AsyncIterator[str]:
    """Run a server with these permissions; its address, without a user."""
    config = f"jetstream: enabled\n{authorization}"
    async with run_server(config=config, store_dir=store) as server:
        yield server.url.removeprefix("nats://").rpartition("@")[2]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with server_with(AUTHORIZATION.read_text()) as url:
        yield url


def connected_as(user: str, url: str, **options: Any) -> AbstractAsyncContextManager[JobProcessor]:
    return job_processor(f"nats://{user}:{user}-secret@{url}", inbox_prefix=f"_INBOX_{user}", **options)


@asynccontextmanager
async def refusals(p: JobProcessor, seen: Seen) -> AsyncIterator[None]:
    """The server says in here that something is not permitted."""
    before = len(seen.of(ServerError))
    yield
    await p.connection.flush()
    await seen.wait_for(ServerError, before + 1)


async def perform(job: Job[Any]) -> None:
    if job.payload == "slow":
        # Longer than the lease.
        await anyio.sleep(1.5)
    elif job.payload == "hopeless":
        raise Reject("no")


DEFN: JobDef[Any] = JobDef(stream=STREAM, perform=perform, consumer_config=ConsumerConfig(ack_wait=1.0))


async def test_a_worker_performs_extends_and_parks_what_a_producer_enqueues_and_an_operator_redrives_and_purges(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    async with (
        connected_as("worker", url, on_event=seen) as worker,
        connected_as("producer", url) as producer,
        connected_as("operator", url) as operator,
    ):
        handle = await worker.start(DEFN)
        await producer.enqueue_many(DEFN, ["slow", "hopeless"])
        await seen.wait_for(Complete)
        await seen.wait_for(DeadLettered)
        assert seen.of(Working)
        assert [event.attempt for event in seen.of(Complete)] == [1]

        [letter] = [letter async for letter in operator.dead_letters.browse(stream=STREAM)]
        assert letter.payload() == "hopeless"
        assert await operator.dead_letters.count() == 1
        await operator.dead_letters.redrive(letter.sequence)
        await seen.wait_for(DeadLettered, 2)
        assert await operator.dead_letters.purge(stream=STREAM) == 1
        await handle.stop()

    assert not seen.of(ServerError)
    assert "permi" not in caplog.text.lower()


async def test_a_worker_parks_a_job_whose_last_delivery_was_lost(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = ConsumerConfig(ack_wait=0.5, max_deliver=1)
    defn: JobDef[Any] = JobDef(stream=STREAM, perform=perform, num_attempts=1, consumer_config=config)
    seen = Seen()
    async with connected_as("worker", url, on_event=seen) as p, connected_as("producer", url) as producer:
        await (await p.start(defn)).stop()
        await producer.enqueue(defn, "lost")
        inbox = p.connection.new_inbox()
        async with p.connection.subscribe(inbox) as messages:
            call = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{STREAM}Consumer"
            await p.connection.publish(call, b'{"batch":1}', reply=inbox)
            await anext(aiter(messages))

        handle = await p.start(defn)
        [event] = await seen.wait_for(DeadLettered)
        assert (event.reason, event.sequence) == ("crash-loop", 1)
        await handle.stop()

    assert not seen.of(ServerError)


async def test_once_it_was_set_up_a_worker_does_without_the_permission_to_set_up(tmp_path: Path) -> None:
    lines = AUTHORIZATION.read_text().splitlines()
    rest = "\n".join(line for line in lines if ".CREATE.ORDERS" not in line and ".UPDATE." not in line)
    rest = rest.replace('"$JS.API.STREAM.CREATE.DEAD_LETTERS"', "")
    seen = Seen()
    async with server_with(AUTHORIZATION.read_text(), tmp_path) as url, connected_as("worker", url) as p:
        await (await p.start(DEFN)).stop()

    async with server_with(rest, tmp_path) as url, connected_as("worker", url, on_event=seen) as p:
        handle = await p.start(DEFN)
        async with connected_as("producer", url) as producer:
            await producer.enqueue_many(DEFN, ["x", "hopeless"])

        await seen.wait_for(Complete)
        await seen.wait_for(DeadLettered)
        with pytest.raises(PermissionDenied):
            await p.api.update_stream({"name": STREAM, "republish": {"src": ">", "dest": "other.>"}})

        await handle.stop()


async def test_a_producer_has_the_server_keep_delayed_jobs_and_cancels_and_reschedules_them(url: str) -> None:
    config = StreamConfig(allow_msg_schedules=True)
    defn: JobDef[Any] = JobDef(stream=STREAM, perform=perform, stream_config=config)
    seen = Seen()
    async with (
        connected_as("worker", url, on_event=seen) as worker,
        connected_as("producer", url, on_event=seen) as producer,
    ):
        handle = await worker.start(defn)
        one, two, _ = await producer.enqueue_many(defn, ["one", "two", "three"], delay=3600)
        assert await one.cancel()
        assert await two.reschedule(datetime.now(UTC))
        await seen.wait_for(Complete)
        assert [event.attempt for event in seen.of(Complete)] == [1]
        await handle.stop()

    assert not seen.of(ServerError)


async def test_a_producer_that_may_not_look_at_the_stream_has_delayed_jobs_wait_with_their_workers(
    tmp_path: Path,
) -> None:
    lines = AUTHORIZATION.read_text().splitlines()
    rest = "\n".join(
        line for line in lines if "CONSUMER.LIST" not in line and "nats_jobs.schedules" not in line
    )
    config = StreamConfig(allow_msg_schedules=True)
    defn: JobDef[Any] = JobDef(stream=STREAM, perform=perform, stream_config=config)
    seen = Seen()
    async with (
        server_with(rest, tmp_path) as url,
        connected_as("worker", url, on_event=seen) as worker,
        connected_as("producer", url) as producer,
    ):
        handle = await worker.start(defn)
        await producer.enqueue(defn, "one", delay=0.3)
        await seen.wait_for(Complete)
        assert [event.attempt for event in seen.of(Complete)] == [2]
        await handle.stop()


@pytest.mark.parametrize("subject", [CLAIMS, ADVISORY, LETTER, "$JS.ACK.ORDERS.ORDERSConsumer.1.1.1.1.0"])
async def test_a_producer_can_publish_nothing_but_jobs(url: str, subject: str) -> None:
    seen = Seen()
    async with connected_as("producer", url, on_event=seen) as p:
        async with refusals(p, seen):
            await p.connection.publish(subject, b"1 99 ~")


@pytest.mark.parametrize("subject", [CLAIMS, ADVISORY, LETTER, STREAM, "_INBOX.>", "_INBOX_worker.>", ">"])
async def test_a_producer_can_hear_nothing_but_its_own_replies(url: str, subject: str) -> None:
    seen = Seen()
    async with connected_as("producer", url, on_event=seen) as p:
        with pytest.raises(PermissionDenied):
            async with p.connection.subscribe(subject) as messages:
                await p.connection.flush()
                await messages.receive()


async def test_a_producer_can_neither_read_nor_remove_dead_letters_or_jobs(url: str) -> None:
    async with connected_as("worker", url) as worker:
        await (await worker.start(DEFN)).stop()

    async with connected_as("producer", url) as p:
        for forbidden in (
            p.dead_letters.count(),
            p.dead_letters.get(1),
            p.dead_letters.purge(),
            p.api.get_message(STREAM, {"seq": 1}),
            p.api.delete_message(STREAM, 1),
            p.api.purge(STREAM),
            p.api.update_consumer(STREAM, {"durable_name": f"{STREAM}Consumer"}),
        ):
            with pytest.raises(PermissionDenied):
                await forbidden


async def test_nobody_but_the_server_can_publish_an_advisory(url: str) -> None:
    for user in ("worker", "operator"):
        seen = Seen()
        async with connected_as(user, url, on_event=seen) as p:
            async with refusals(p, seen):
                await p.connection.publish(ADVISORY, json.dumps({"stream_seq": 1, "deliveries": 1}).encode())


async def test_a_worker_reaches_no_other_stream_and_removes_no_letter(url: str) -> None:
    async with connected_as("worker", url) as p:
        await (await p.start(DEFN)).stop()
        for forbidden in (
            p.dead_letters.purge(),
            p.api.delete_message("DEAD_LETTERS", 1),
            p.api.create_stream({"name": "OTHER", "subjects": ["other"]}),
            p.api.get_message("OTHER", {"seq": 1}),
            p.api.update_stream({"name": "DEAD_LETTERS", "subjects": ["dead_letters.>"], "max_msgs": 1}),
        ):
            with pytest.raises(PermissionDenied):
                await forbidden
