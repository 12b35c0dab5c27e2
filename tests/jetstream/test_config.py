"""Configurations go to the server as the user gave them, and come back as the server keeps them."""

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
from nats.js.errors import APIError, NotFoundError

from nats_jobs.jetstream import ServerConfig, explicit_fields, jetstream_context
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
        server = ServerConfig(jetstream_context(connection))
        with pytest.raises(NotFoundError):
            await server.stream(name)

        made = await server.create_stream({"name": name, "subjects": [name]})
        assert made == await server.stream(name)
        changed = await server.update_stream(made | {"max_msgs": 3})
        assert changed == made | {"max_msgs": 3}

        with pytest.raises(NotFoundError):
            await server.consumer(name, "c")

        consumer = {"durable_name": "c", "ack_policy": "explicit", "max_batch": 5}
        made = await server.create_consumer(name, consumer)
        assert made == await server.consumer(name, "c")
        assert made.items() >= consumer.items()
        changed = await server.update_consumer(name, made | {"max_deliver": 3})
        assert changed == made | {"max_deliver": 3}
        await jetstream_context(connection).delete_stream(name)


async def test_creating_what_exists_otherwise_is_refused_and_changes_nothing(url: str, name: str) -> None:
    async with connect(url) as connection:
        server = ServerConfig(jetstream_context(connection))
        await server.create_stream({"name": name, "subjects": [name]})
        await server.create_consumer(name, {"durable_name": "c", "ack_policy": "explicit"})
        before = await server.stream(name), await server.consumer(name, "c")

        with pytest.raises(APIError) as stream:
            await server.create_stream({"name": name, "subjects": [name], "max_msgs": 1})

        with pytest.raises(APIError) as consumer:
            await server.create_consumer(
                name, {"durable_name": "c", "ack_policy": "explicit", "max_deliver": 1}
            )

        assert (stream.value.err_code, consumer.value.err_code) == (10058, 10148)
        assert (await server.stream(name), await server.consumer(name, "c")) == before


async def test_updating_what_is_not_there_is_refused(url: str, name: str) -> None:
    async with connect(url) as connection:
        server = ServerConfig(jetstream_context(connection))
        with pytest.raises(APIError):
            await server.update_stream({"name": name, "subjects": [name]})

        await server.create_stream({"name": name, "subjects": [name]})
        with pytest.raises(APIError) as refused:
            await server.update_consumer(name, {"durable_name": "c", "ack_policy": "explicit"})

        assert refused.value.err_code == 10149
