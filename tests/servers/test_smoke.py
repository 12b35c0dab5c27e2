"""What the library does, once, against the nats-server that `NATS_SERVER_BINARY` names: each version is run by itself.

A feature that a version lacks is skipped with what it needs. Everything that is not skipped works with every version.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from nats.js.api import ConsumerConfig, StorageType, StreamConfig
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from nats_jobs import CancelReason, Job, JobDef, Reject, codecs, job, job_processor
from nats_jobs.errors import ConfigMismatch, NoResponders
from nats_jobs.events import Complete, DeadLettered, Error, Working
from nats_jobs.server import Server, run_server
from nats_jobs.wire import Connection, connect
from support.jobs import Seen, until, until_empty

pytestmark = pytest.mark.anyio

LIMIT = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    binary = os.environ.get("NATS_SERVER_BINARY") or None
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(run_server(binary=binary)) as server,
    ):
        yield server


@pytest.fixture
def url(server: Server) -> str:
    return server.url


async def _call(connection: Connection, api: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask JetStream's API in the server's own words."""
    reply = await connection.request(f"$JS.API.{api}", json.dumps(body or {}).encode())
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


def _needs(connection: Connection, *version: int, what: str) -> None:
    """Skip the rest of a test on servers that are older."""
    text = str(connection.server_info["version"])
    if tuple(int(part) for part in text.split("-")[0].split(".")) < version:
        pytest.skip(f"{what}: nats-server {'.'.join(map(str, version))} and newer; this is {text}")


# The wire...


async def test_it_is_the_version_that_was_asked_for(url: str) -> None:
    asked = os.environ.get("NATS_SERVER_VERSION")
    async with connect(url) as nc:
        assert nc.server_info["version"] == (asked or nc.server_info["version"])
        assert nc.server_info["headers"] is True
        assert nc.max_payload == 1024 * 1024


async def test_messages_arrive_with_their_headers(url: str, name: str) -> None:
    sent = {"X-Text": "äöü ☃", "X-Twice": ["one", "two"], "x-Case": "kept"}
    async with connect(url) as nc, nc.subscribe(f"{name}.>") as subscription:
        await nc.publish(f"{name}.plain", b"plain")
        await nc.publish(f"{name}.headed", b"headed", headers=sent)
        await nc.publish(f"{name}.empty", b"", headers={"Only": "this"})
        with anyio.fail_after(LIMIT):
            got = [await anext(subscription) for _ in range(3)]

    assert [(message.subject, message.data) for message in got] == [
        (f"{name}.plain", b"plain"),
        (f"{name}.headed", b"headed"),
        (f"{name}.empty", b""),
    ]
    assert [not message.headers for message in got] == [True, False, False]
    assert got[1].headers["X-Text"] == "äöü ☃"
    assert got[1].headers.get_all("X-Twice") == ["one", "two"]
    assert got[2].headers["Only"] == "this"


async def test_a_request_is_answered_and_one_without_responders_fails_at_once(url: str, name: str) -> None:
    replies: list[bytes] = []
    async with connect(url) as nc, nc.subscribe(name, queue="q") as subscription:
        async with anyio.create_task_group() as tasks:

            async def answer() -> None:
                async for message in subscription:
                    await nc.publish(message.reply, message.data.upper())

            tasks.start_soon(answer)
            replies += [(await nc.request(name, text, timeout=LIMIT)).data for text in (b"one", b"two")]
            tasks.cancel_scope.cancel("answered")

        assert replies == [b"ONE", b"TWO"]
        with pytest.raises(NoResponders):
            await nc.request(f"{name}.nobody", b"", timeout=LIMIT)


# Jobs...


async def test_a_job_is_performed_and_removed(url: str, name: str) -> None:
    got: list[tuple[Any, int, str | None]] = []

    @job(name, concurrency=3)
    async def keep(job: Job[Any]) -> None:
        got.append((job.payload, job.attempt, job.id))

    async with job_processor(url) as p:
        await p.start(keep)
        first = await p.enqueue(keep, {"n": 1}, id="mine")
        again = await p.enqueue(keep, {"n": 2}, id="mine")
        await until_empty(p.js, name)
        await p.stop()

    assert (first.duplicate, again.duplicate, again.sequence) == (False, True, first.sequence)
    assert got == [({"n": 1}, 1, "mine")]


async def test_many_jobs_are_enqueued_at_once_and_all_are_performed(url: str, name: str) -> None:
    got: list[int] = []

    @job(name, concurrency=50)
    async def keep(job: Job[int]) -> None:
        got.append(job.payload)

    async with job_processor(url) as p:
        await p.start(keep)
        enqueued = await p.enqueue_many(keep, range(3000))
        await until_empty(p.js, name)
        await p.stop()

    assert sorted(entry.sequence for entry in enqueued) == list(range(1, 3001))
    assert sorted(got) == list(range(3000))


async def test_a_job_can_wait(url: str, name: str) -> None:
    started: list[datetime] = []

    @job(name)
    async def later(job: Job[None]) -> None:
        started.append(datetime.now(UTC))

    async with job_processor(url) as p:
        await p.start(later)
        due = datetime.now(UTC) + timedelta(seconds=0.5)
        await p.enqueue(later, None, at=due)
        await until_empty(p.js, name)
        await p.stop()

    assert len(started) == 1
    assert started[0] >= due


async def test_a_failing_job_is_tried_again(url: str, name: str) -> None:
    seen = Seen()
    attempts: list[int] = []

    @job(name, backoff=[0.01, 0.02])
    async def third_time_lucky(job: Job[None]) -> None:
        attempts.append(job.attempt)
        if job.attempt < 3:
            raise ValueError

    async with job_processor(url, on_event=seen) as p:
        await p.start(third_time_lucky)
        await p.enqueue(third_time_lucky, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1, 2, 3]
    assert [event.backoff for event in seen.of(Error)] == [0.01, 0.02]
    assert [event.attempt for event in seen.of(Complete)] == [3]


async def test_exhausted_rejected_and_undecodable_jobs_become_dead_letters(url: str, name: str) -> None:
    seen = Seen()

    @job(name, num_attempts=2, backoff=0, codec=codecs.JSON)
    async def hopeless(job: Job[str]) -> None:
        raise Reject("never") if job.payload == "reject" else ValueError("no way")

    async with job_processor(url, on_event=seen) as p:
        await p.start(hopeless)
        await p.enqueue(hopeless, "exhaust", id="first")
        await p.enqueue(hopeless, "reject")
        async with connect(url) as outside:
            await outside.publish(name, b"{not json")

        await until_empty(p.js, name)
        first = (
            await p.js.get_msg("DEAD_LETTERS", subject=f"dead_letters.{name}.{name}", seq=1, next=True)
        ).headers
        await p.stop()

    assert sorted(event.reason for event in seen.of(DeadLettered)) == ["exhausted", "rejected", "undecodable"]
    assert first is not None
    assert first["Nats-Jobs-Stream"] == name


async def test_a_worker_that_stops_hands_its_jobs_over_at_once(url: str, name: str) -> None:
    attempts: list[int] = []
    reasons: list[CancelReason | None] = []

    async def perform(job: Job[None]) -> None:
        attempts.append(job.attempt)
        try:
            if job.attempt == 1:
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            reasons.append(job.reason)
            raise

    # Only the hand-over can be so soon: the server itself would wait for an hour.
    defn = JobDef(stream=name, perform=perform, consumer_config=ConsumerConfig(ack_wait=3600))
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, None)
        await until(lambda: attempts)
        await p.stop(grace=0)

    async with job_processor(url) as p:
        await p.start(defn)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1, 2]
    assert reasons == [CancelReason.STOP]


async def test_a_job_that_runs_for_longer_than_its_lease_keeps_it(url: str, name: str) -> None:
    seen = Seen()
    attempts: list[int] = []

    async def perform(job: Job[None]) -> None:
        attempts.append(job.attempt)
        # The lease of 1 s is over for sure after the fifth extension.
        await seen.wait_for(Working, 5)

    defn = JobDef(stream=name, perform=perform, consumer_config=ConsumerConfig(ack_wait=1))
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, None)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [1]


async def test_a_job_whose_holder_vanished_is_delivered_again(url: str, name: str) -> None:
    attempts: list[int] = []

    async def perform(job: Job[None]) -> None:
        attempts.append(job.attempt)

    defn = JobDef(stream=name, perform=perform, consumer_config=ConsumerConfig(ack_wait=1))
    async with job_processor(url) as p:
        handle = await p.start(defn)
        await handle.stop()
        await p.enqueue(defn, None)
        async with (
            connect(url) as vanishing,
            vanishing.subscribe(inbox := vanishing.new_inbox()) as subscription,
        ):
            await vanishing.publish(f"$JS.API.CONSUMER.MSG.NEXT.{name}.{name}Consumer", b"1", reply=inbox)
            with anyio.fail_after(LIMIT):
                assert (await anext(subscription)).subject == name

        await p.start(defn)
        await until_empty(p.js, name)
        await p.stop()

    assert attempts == [2]


# Set-up...


async def test_what_exists_is_bound_to_changed_or_refused(url: str, name: str) -> None:
    numbers = itertools.count()

    async def perform(job: Job[None]) -> None:
        next(numbers)

    def defined(**stream_config: Any) -> JobDef[None]:
        return JobDef(
            stream=name,
            perform=perform,
            stream_config=StreamConfig(**stream_config),
            consumer_config=ConsumerConfig(ack_wait=20),
        )

    async with job_processor(url) as p:
        for defn in (defined(), defined(), defined(max_msgs=1000, subjects=[name, f"{name}.more"])):
            handle = await p.start(defn)
            await p.enqueue(defn, None)
            await until_empty(p.js, name)
            await handle.stop()

        config = (await p.js.stream_info(name)).config
        assert (config.max_msgs, config.subjects) == (1000, [name, f"{name}.more"])
        assert (await p.js.consumer_info(name, f"{name}Consumer")).config.ack_wait == 20
        with pytest.raises(ConfigMismatch, match="storage"):
            await p.start(defined(storage=StorageType.MEMORY))

        await p.stop()

    assert next(numbers) == 3


async def test_a_consumer_is_created_only_if_there_is_none_with_other_settings(url: str, name: str) -> None:
    """Two workers that start at once must not overwrite each other's consumer: this is the call they rely on."""

    async def create(nc: Connection, ack_wait: int) -> int | None:
        config = {"durable_name": "c", "ack_policy": "explicit", "ack_wait": ack_wait * 1_000_000_000}
        body = {"stream_name": name, "config": config, "action": "create"}
        answer = await _call(nc, f"CONSUMER.CREATE.{name}.c", body)
        code: int | None = answer.get("error", {}).get("err_code")
        return code

    async with connect(url) as nc:
        await _call(nc, f"STREAM.CREATE.{name}", {"name": name, "subjects": [name], "retention": "workqueue"})
        assert [await create(nc, 5), await create(nc, 5), await create(nc, 6)] == [None, None, 10148]


# The rest of JetStream, through nats-py's layer...


async def test_key_value_buckets_work(url: str, name: str) -> None:
    async with job_processor(url) as p:
        bucket = await p.js.create_key_value(bucket=name, history=3)
        first = await bucket.create("key", b"one")
        with pytest.raises(KeyWrongLastSequenceError):
            await bucket.create("key", b"other")

        second = await bucket.update("key", b"two", last=first)
        with pytest.raises(KeyWrongLastSequenceError):
            await bucket.update("key", b"stale", last=first)

        entry = await bucket.get("key")
        assert (entry.value, entry.revision) == (b"two", second)
        await bucket.delete("key")
        with pytest.raises(KeyNotFoundError):
            await bucket.get("key")

        await p.js.delete_key_value(name)


# What only newer servers have...


async def test_a_message_can_have_a_time_to_live(url: str, name: str) -> None:
    async with job_processor(url) as p:
        _needs(p.connection, 2, 11, what="a time to live for one message")
        await p.js.add_stream(StreamConfig(name=name, subjects=[name], allow_msg_ttl=True))
        await p.js.publish(name, b"stays")
        await p.js.publish(name, b"goes", headers={"Nats-TTL": "1s"})
        await until(lambda: _left(p.connection, name, 1))
        assert (await p.js.get_msg(name, 1)).data == b"stays"


async def test_a_consumer_can_be_paused(url: str, name: str) -> None:
    async with job_processor(url) as p:
        _needs(p.connection, 2, 11, what="pausing a consumer")
        await p.js.add_stream(StreamConfig(name=name, subjects=[name]))
        await p.js.add_consumer(name, ConsumerConfig(durable_name="c"))
        until_when = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        assert (await _call(p.connection, f"CONSUMER.PAUSE.{name}.c", {"pause_until": until_when}))["paused"]


async def test_a_message_can_be_stored_for_later(url: str, name: str) -> None:
    async with job_processor(url) as p:
        _needs(p.connection, 2, 12, what="schedules for one moment")
        config = StreamConfig(name=name, subjects=[name, f"{name}.later.>"], allow_msg_schedules=True)
        await p.js.add_stream(config)
        due = datetime.now(UTC) + timedelta(seconds=0.5)
        at = {"Nats-Schedule": f"@at {due.isoformat()}", "Nats-Schedule-Target": name}
        await p.js.publish(f"{name}.later.1", b"due", headers=at)
        await until(lambda: _last(p.connection, name, name))
        assert datetime.now(UTC) >= due


async def test_many_messages_can_be_stored_all_or_none(url: str, name: str) -> None:
    async with job_processor(url) as p:
        _needs(p.connection, 2, 12, what="atomic batches")
        await p.js.add_stream(StreamConfig(name=name, subjects=[name], allow_atomic=True))
        for number in (1, 2):
            headers = {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": str(number)}
            await p.connection.request(name, b"", headers=headers, timeout=LIMIT)

        assert await _left(p.connection, name, 0)
        headers = {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "3", "Nats-Batch-Commit": "1"}
        answer = json.loads((await p.connection.request(name, b"", headers=headers, timeout=LIMIT)).data)
        assert (answer.get("batch"), answer.get("count")) == ("b", 3)
        assert await _left(p.connection, name, 3)


async def test_a_message_can_be_stored_again_and_again(url: str, name: str) -> None:
    async with job_processor(url) as p:
        _needs(p.connection, 2, 14, what="recurring schedules")
        config = StreamConfig(name=name, subjects=[name, f"{name}.every"], allow_msg_schedules=True)
        await p.js.add_stream(config)
        every = {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": name}
        await p.js.publish(f"{name}.every", b"tick", headers=every)
        await until(lambda: _left(p.connection, name, 3))


async def _left(connection: Connection, stream: str, count: int) -> bool:
    """Whether `count` messages are stored."""
    answer = await _call(connection, f"STREAM.INFO.{stream}")
    return bool(answer["state"]["messages"] == count)


async def _last(connection: Connection, stream: str, subject: str) -> bool:
    return "message" in await _call(connection, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
