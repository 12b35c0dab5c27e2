"""What differs from one version of nats-server to the next, and what we rely on in each of them.

A feature that a version lacks is skipped with what it needs. These and the other tests marked `smoke` are run
against each version by `nox -s servers`.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from nats.js.api import ConsumerConfig, StreamConfig

from nats_jobs import Job, JobDef, job_processor
from nats_jobs.wire import Connection, connect
from support.jobs import until, until_empty

pytestmark = [pytest.mark.anyio, pytest.mark.smoke]

LIMIT = 30.0


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


async def test_it_is_the_version_that_was_asked_for(url: str) -> None:
    asked = os.environ.get("NATS_SERVER_VERSION")
    async with connect(url) as nc:
        assert nc.server_info["version"] == (asked or nc.server_info["version"])
        assert nc.server_info["headers"] is True
        assert nc.max_payload == 1024 * 1024


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
