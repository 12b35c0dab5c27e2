"""JetStream's API: what goes to the server as it was given, and comes back as the server keeps it."""

from __future__ import annotations

import pytest
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    Placement,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamConsumerLimits,
)

from nats_jobs.errors import ApiError
from nats_jobs.jetstream import ErrorCode, JetStreamApi, explicit_fields, jetstream_context
from nats_jobs.wire import connect

pytestmark = pytest.mark.anyio


def test_nothing_given_is_nothing_asked_for() -> None:
    assert explicit_fields(None) == explicit_fields(StreamConfig()) == explicit_fields(ConsumerConfig()) == {}


def test_what_was_given_is_in_the_servers_units() -> None:
    config = StreamConfig(
        name="S",
        subjects=["a"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_age=1.5,
        duplicate_window=2,
        num_replicas=1,
        deny_delete=True,
        placement=Placement(cluster="c", tags=["t"]),
        consumer_limits=StreamConsumerLimits(max_ack_pending=5),
    )
    assert explicit_fields(config) == {
        "name": "S",
        "subjects": ["a"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": 1_500_000_000,
        "duplicate_window": 2_000_000_000,
        "num_replicas": 1,
        "deny_delete": True,
        "placement": {"cluster": "c", "tags": ["t"]},
        "consumer_limits": {"max_ack_pending": 5},
    }


def test_a_consumers_durations_are_nanoseconds() -> None:
    config = ConsumerConfig(
        ack_wait=0.25, deliver_policy=DeliverPolicy.NEW, ack_policy=AckPolicy.ALL, max_deliver=-1
    )
    assert explicit_fields(config) == {
        "ack_wait": 250_000_000,
        "deliver_policy": "new",
        "ack_policy": "all",
        "max_deliver": -1,
    }


async def test_create_read_update(url: str, name: str) -> None:
    async with connect(url) as connection:
        api = JetStreamApi(connection)
        with pytest.raises(ApiError) as missing:
            await api.stream(name)

        assert missing.value.err_code == ErrorCode.STREAM_NOT_FOUND
        made = await api.create_stream({"name": name, "subjects": [name]})
        found = await api.stream(name)
        assert (made.config, made.created) == (found.config, found.created)
        changed = await api.update_stream(made.config | {"max_msgs": 3})
        assert changed.config == made.config | {"max_msgs": 3}
        assert changed.created == made.created

        with pytest.raises(ApiError) as missing:
            await api.consumer(name, "c")

        assert missing.value.err_code == ErrorCode.CONSUMER_NOT_FOUND
        consumer = {"durable_name": "c", "ack_policy": "explicit", "max_batch": 5}
        made = await api.create_consumer(name, consumer)
        assert made.config == (await api.consumer(name, "c")).config
        assert made.config.items() >= consumer.items()
        changed = await api.update_consumer(name, made.config | {"max_deliver": 3})
        assert changed.config == made.config | {"max_deliver": 3}
        await jetstream_context(connection).delete_stream(name)


async def test_a_stream_that_is_made_anew_can_be_told_from_the_one_before(url: str, name: str) -> None:
    async with connect(url) as connection:
        api = JetStreamApi(connection)
        before = await api.create_stream({"name": name, "subjects": [name]})
        await api.request(f"STREAM.DELETE.{name}")
        after = await api.create_stream({"name": name, "subjects": [name]})

    assert before.config == after.config
    assert before.created != after.created


async def test_messages_are_read_removed_and_purged_one_by_one(url: str, name: str) -> None:
    async with connect(url) as connection:
        api = JetStreamApi(connection)
        await api.create_stream({"name": name, "subjects": [f"{name}.*"]})
        for token in "abab":
            await connection.request(f"{name}.{token}", b"x")

        message = await api.get_message(name, {"last_by_subj": f"{name}.a"})
        assert message is not None
        assert message["seq"] == 3
        await api.delete_message(name, 3)
        assert await api.get_message(name, {"seq": 3}) is None
        assert await api.get_message(f"{name}-none", {"seq": 3}) is None
        with pytest.raises(ApiError):
            await api.delete_message(name, 3)

        assert await api.purge(name, filter=f"{name}.b") == 2
        assert (await api.stream(name)).state["messages"] == 1


async def test_creating_what_exists_otherwise_is_refused_and_changes_nothing(url: str, name: str) -> None:
    async with connect(url) as connection:
        api = JetStreamApi(connection)
        await api.create_stream({"name": name, "subjects": [name]})
        await api.create_consumer(name, {"durable_name": "c", "ack_policy": "explicit"})
        before = (await api.stream(name)).config, (await api.consumer(name, "c")).config

        with pytest.raises(ApiError) as stream:
            await api.create_stream({"name": name, "subjects": [name], "max_msgs": 1})

        with pytest.raises(ApiError) as consumer:
            await api.create_consumer(name, {"durable_name": "c", "ack_policy": "explicit", "max_deliver": 1})

        assert (stream.value.err_code, consumer.value.err_code) == (
            ErrorCode.STREAM_NAME_IN_USE,
            ErrorCode.CONSUMER_EXISTS,
        )
        assert ((await api.stream(name)).config, (await api.consumer(name, "c")).config) == before


async def test_updating_what_is_not_there_is_refused(url: str, name: str) -> None:
    async with connect(url) as connection:
        api = JetStreamApi(connection)
        with pytest.raises(ApiError):
            await api.update_stream({"name": name, "subjects": [name]})

        await api.create_stream({"name": name, "subjects": [name]})
        with pytest.raises(ApiError) as refused:
            await api.update_consumer(name, {"durable_name": "c", "ack_policy": "explicit"})

        assert refused.value.err_code == ErrorCode.CONSUMER_DOES_NOT_EXIST
