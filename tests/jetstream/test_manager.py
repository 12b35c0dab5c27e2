"""The contract with nats-py: its JetStream calls run on our connection, on each backend.

A nats-py release that begins to need an event loop of asyncio for one of these is caught here.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
from nats.js import api
from nats.js.client import JetStreamContext
from nats.js.errors import (
    APIError,
    BadRequestError,
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoStreamResponseError,
    NotFoundError,
    ServiceUnavailableError,
)

from nats_jobs.errors import NatsJobsError, RequestTimeout, UsageError
from nats_jobs.jetstream import jetstream_context
from nats_jobs.server import run_server
from nats_jobs.wire import Connection, Subscription, connect

pytestmark = pytest.mark.anyio


async def work_queue(js: JetStreamContext, name: str) -> None:
    await js.add_stream(
        api.StreamConfig(name=name, subjects=[f"{name}.>"], retention=api.RetentionPolicy.WORK_QUEUE)
    )


# Streams...


async def test_a_stream_is_made_changed_described_and_deleted(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        made = await js.add_stream(name=name, subjects=[name], max_age=60.0, storage=api.StorageType.MEMORY)
        assert (made.config.name, made.config.max_age, made.config.storage) == (name, 60.0, "memory")

        changed = await js.update_stream(made.config, subjects=[name, f"{name}.more"])
        assert changed.config.subjects == [name, f"{name}.more"]

        await js.publish(f"{name}.more", b"1")
        info = await js.stream_info(name, subjects_filter=">")
        assert info.state.messages == 1
        assert info.state.subjects == {f"{name}.more": 1}

        assert await js.delete_stream(name)
        with pytest.raises(NotFoundError):
            await js.stream_info(name)


async def test_streams_are_listed_and_found_by_subject(name: str) -> None:
    # Of the shared server, with the streams of a thousand tests, the list has more than one page.
    async with run_server() as server, connect(server.url) as connection:
        js = jetstream_context(connection)
        await work_queue(js, name)
        assert name in [info.config.name for info in await js.streams_info()]
        assert name in [info.config.name for info in await js.streams_info_iterator()]
        assert await js.find_stream_name_by_subject(f"{name}.a") == name
        with pytest.raises(NotFoundError):
            await js.find_stream_name_by_subject(f"{name}_unknown")


async def test_a_stream_that_exists_otherwise_is_an_error_with_the_servers_code(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        await work_queue(js, name)
        with pytest.raises(BadRequestError) as refused:
            await js.add_stream(name=name, subjects=["other"])

        assert refused.value.err_code == 10058


async def test_messages_are_read_deleted_and_purged(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        await js.add_stream(name=name, subjects=[f"{name}.>"], allow_direct=True)
        for number in range(5):
            await js.publish(f"{name}.{number % 2}", str(number).encode(), headers={"X-Number": str(number)})

        first = await js.get_msg(name, 1)
        assert (first.subject, first.data, first.seq) == (f"{name}.0", b"0", 1)
        assert first.headers == {"X-Number": "0"}
        direct = await js.get_msg(name, 2, direct=True)
        assert (direct.data, direct.seq) == (b"1", 2)
        assert (await js.get_msg(name, seq=2, subject=f"{name}.0", next=True)).data == b"2"
        assert (await js.get_last_msg(name, f"{name}.1")).data == b"3"
        with pytest.raises(NotFoundError):
            await js.get_msg(name, 99)

        assert await js.delete_msg(name, 1)
        with pytest.raises(NotFoundError):
            await js.get_msg(name, 1)

        assert await js.purge_stream(name, subject=f"{name}.1")
        assert (await js.stream_info(name)).state.messages == 2
        assert await js.purge_stream(name)
        assert (await js.stream_info(name)).state.messages == 0


# Consumers...


@pytest.mark.smoke
async def test_a_consumer_is_made_changed_described_listed_and_deleted(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        await work_queue(js, name)
        config = api.ConsumerConfig(durable_name="c", ack_policy=api.AckPolicy.EXPLICIT, ack_wait=5.5)
        made = await js.add_consumer(name, config)
        assert (made.name, made.config.ack_wait) == ("c", 5.5)

        await js.publish(f"{name}.a", b"1")
        info = await js.consumer_info(name, "c")
        assert (info.num_pending, info.num_ack_pending, info.num_waiting) == (1, 0, 0)

        await js.add_consumer(name, made.config, max_ack_pending=7)
        assert (await js.consumer_info(name, "c")).config.max_ack_pending == 7
        assert [info.name for info in await js.consumers_info(name)] == ["c"]
        assert await js.delete_consumer(name, "c")
        with pytest.raises(NotFoundError):
            await js.consumer_info(name, "c")


async def test_a_consumer_is_paused_and_resumed(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        await work_queue(js, name)
        await js.add_consumer(name, api.ConsumerConfig(durable_name="c", ack_policy=api.AckPolicy.EXPLICIT))
        assert (await js.pause_consumer(name, "c", "2100-01-01T00:00:00Z")).paused
        assert not (await js.resume_consumer(name, "c")).paused


# Account and publish...


async def test_the_account_is_described(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        await work_queue(js, name)
        assert (await js.account_info()).streams >= 1


@pytest.mark.smoke
async def test_a_publish_is_confirmed_deduplicated_and_checked(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        await work_queue(js, name)
        ack = await js.publish(f"{name}.a", b"1", headers={api.Header.MSG_ID: "one"})
        assert (ack.stream, ack.seq, ack.duplicate) == (name, 1, None)
        again = await js.publish(f"{name}.a", b"1", headers={"Nats-Msg-Id": "one"})
        assert (again.seq, again.duplicate) == (1, True)

        with pytest.raises(APIError) as refused:
            await js.publish(f"{name}.a", b"1", stream="OTHER")

        assert refused.value.err_code == 10060
        with pytest.raises(NoStreamResponseError):
            await js.publish(f"{name}_unknown", b"1")


# Key-value...


@pytest.mark.smoke
async def test_the_life_of_a_key(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        kv = await js.create_key_value(bucket=name, history=5)
        assert await kv.put("k", b"1") == 1
        entry = await kv.get("k")
        assert (entry.value, entry.revision, entry.key, entry.bucket) == (b"1", 1, "k", name)
        assert await kv.update("k", b"2", last=1) == 2
        assert (await kv.get("k", revision=1)).value == b"1"
        with pytest.raises(KeyWrongLastSequenceError):
            await kv.update("k", b"3", last=1)

        with pytest.raises(KeyWrongLastSequenceError):
            await kv.create("k", b"3")

        assert await kv.delete("k")
        with pytest.raises(KeyNotFoundError):
            await kv.get("k")

        # A deleted key can be made again.
        assert await kv.create("k", b"4") == 4
        assert await kv.purge("k")
        with pytest.raises(KeyNotFoundError):
            await kv.get("never")

        status = await kv.status()
        assert (status.bucket, status.history) == (name, 5)


async def test_a_bucket_is_found_and_deleted(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        await js.create_key_value(bucket=name)
        kv = await js.key_value(name)
        await kv.put("k", b"v")
        assert await js.delete_key_value(name)
        with pytest.raises(BucketNotFoundError):
            await js.key_value(name)


async def test_a_key_goes_when_its_time_is_over(url: str, name: str) -> None:
    async with connect(url) as connection:
        kv = await jetstream_context(connection).create_key_value(bucket=name, ttl=3600.0)
        assert (await kv.status()).ttl == 3600.0


# What needs asyncio...


async def test_subscribing_through_nats_py_is_refused_with_a_sentence(url: str, name: str) -> None:
    async with connect(url) as connection:
        js = jetstream_context(connection)
        # nats-py makes a consumer before it subscribes; a work queue would take only one.
        await js.add_stream(name=name, subjects=[f"{name}.>"])
        with pytest.raises(UsageError, match="use a job definition"):
            await js.subscribe(f"{name}.a", ordered_consumer=False)

        with pytest.raises(UsageError, match="use a job definition"):
            await js.pull_subscribe(f"{name}.a", durable="c")


# When there is no answer...


async def test_without_jetstream_every_call_says_unavailable() -> None:
    async with run_server(jetstream=False) as server, connect(server.url) as connection:
        js = jetstream_context(connection)
        for call in (js.account_info, js.streams_info, lambda: js.stream_info("S")):
            with pytest.raises(ServiceUnavailableError):
                await call()


async def test_a_call_that_gets_no_answer_ends_after_its_timeout(url: str) -> None:
    async with connect(url) as connection, _silence(connection):
        js = jetstream_context(connection, timeout=0.2, domain="nowhere")
        with pytest.raises(RequestTimeout) as failed:
            await js.stream_info("S")

        assert isinstance(failed.value, NatsJobsError)
        assert failed.value.seconds == 0.2


def _silence(connection: Connection) -> AbstractAsyncContextManager[Subscription]:
    """A subscriber who never answers: without one there would be a 503."""
    return connection.subscribe("$JS.nowhere.>")


async def test_the_servers_version_is_known(url: str) -> None:
    async with connect(url) as connection:
        version = jetstream_context(connection)._nc.connected_server_version
        assert version.major >= 2
