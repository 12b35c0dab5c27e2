"""Stream and consumer: made as the Node library makes them, bound to when there, compared field by field."""

from __future__ import annotations

import json
import logging
import signal
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
import pytest
from nats.js.api import (
    ConsumerConfig,
    DiscardPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    SubjectTransform,
)

from nats_jobs import Job, JobDef, JobHandle, JobProcessor, Retry, job_processor
from nats_jobs.errors import ConfigMismatch, Difference, SetupFailed
from nats_jobs.events import DeadLettered, Error, Interrupted, LeaseLost, Receive
from nats_jobs.jetstream import explicit_fields
from nats_jobs.jobs._setup import set_up
from nats_jobs.server import run_server
from support.jobs import LIMIT, Seen, in_stream, until, until_empty

pytestmark = pytest.mark.anyio

NS = 1_000_000_000
WEEK = 7 * 24 * 3600

NODE_STREAM = {
    "retention": "workqueue",
    "storage": "file",
    "max_age": WEEK * NS,
    "num_replicas": 1,
    "discard": "old",
    "deny_delete": False,
    "deny_purge": False,
}
NODE_CONSUMER = {
    "max_deliver": 5,
    "ack_policy": "explicit",
    "ack_wait": 10 * NS,
    "deliver_policy": "all",
    "replay_policy": "instant",
}

FILTERS: list[dict[str, Any]] = [
    {},
    {"filter_subject": "X.a"},
    {"filter_subject": "X.>"},
    {"filter_subjects": ["X.b", "X.c"]},
]


async def perform(job: Job[Any]) -> None: ...


def defined(name: str, **fields: Any) -> JobDef[Any]:
    return JobDef(**{"stream": name, "perform": perform, **fields})


async def call(p: JobProcessor, api: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the server's API in its own words."""
    reply = json.loads((await p.connection.request(f"$JS.API.{api}", json.dumps(body or {}).encode())).data)
    assert "error" not in reply, reply
    return dict(reply)


async def stream_of(p: JobProcessor, name: str) -> dict[str, Any]:
    config: dict[str, Any] = (await call(p, f"STREAM.INFO.{name}"))["config"]
    return config


async def consumer_of(p: JobProcessor, name: str, consumer: str | None = None) -> dict[str, Any]:
    config: dict[str, Any] = (await call(p, f"CONSUMER.INFO.{name}.{consumer or name + 'Consumer'}"))[
        "config"
    ]
    return config


async def make_stream(p: JobProcessor, name: str, **config: Any) -> None:
    await call(p, f"STREAM.CREATE.{name}", {"name": name, "subjects": [name]} | NODE_STREAM | config)


async def make_consumer(p: JobProcessor, name: str, **config: Any) -> None:
    durable = config.get("durable_name", f"{name}Consumer")
    config = {"durable_name": durable} | NODE_CONSUMER | config
    await call(
        p, f"CONSUMER.CREATE.{name}.{durable}", {"stream_name": name, "config": config, "action": "create"}
    )


async def make_what_node_makes(p: JobProcessor, name: str) -> None:
    await make_stream(p, name)
    await make_consumer(p, name)


# Nothing is there...


@pytest.mark.smoke
async def test_stream_and_consumer_are_made_as_the_node_library_makes_them_but_for_two_limits(
    url: str, name: str
) -> None:
    async with job_processor(url) as p:
        await p.start(defined(name))
        ours = await stream_of(p, name), await consumer_of(p, name)
        await p.stop()
        await p.js.delete_stream(name)
        await make_what_node_makes(p, name)
        nodes = await stream_of(p, name), await consumer_of(p, name)

    assert ours[0] == nodes[0]
    assert ours[0].items() >= NODE_STREAM.items() - {("deny_delete", False), ("deny_purge", False)}
    assert ours[0]["subjects"] == [name]
    assert ours[1] == nodes[1] | {"max_deliver": 25, "max_ack_pending": -1}
    assert ours[1]["durable_name"] == f"{name}Consumer"


async def test_what_the_definition_says_wins_over_the_defaults(url: str, name: str) -> None:
    defn = defined(
        name,
        num_attempts=3,
        stream_config=StreamConfig(
            subjects=[f"{name}.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.MEMORY,
            max_age=60,
            duplicate_window=30,
            description="mine",
            discard=DiscardPolicy.NEW,
            max_msgs=100,
        ),
        consumer_config=ConsumerConfig(
            durable_name="worker",
            ack_wait=2.5,
            max_ack_pending=7,
            filter_subject=f"{name}.a",
            description="mine",
        ),
    )
    async with job_processor(url) as p:
        await p.start(defn)
        stream, consumer = await stream_of(p, name), await consumer_of(p, name, "worker")
        await p.stop()

    assert (
        stream.items()
        >= {
            "retention": "limits",
            "storage": "memory",
            "max_age": 60 * NS,
            "duplicate_window": 30 * NS,
            "description": "mine",
            "discard": "new",
            "max_msgs": 100,
        }.items()
    )
    assert stream["subjects"] == [f"{name}.>"]
    assert (
        consumer.items()
        >= {
            "ack_wait": int(2.5 * NS),
            "max_ack_pending": 7,
            "filter_subject": f"{name}.a",
            "max_deliver": 23,
            "description": "mine",
        }.items()
    )


async def test_the_dead_letter_stream_is_made_on_first_start_only_when_it_is_wanted() -> None:
    async with run_server() as server, job_processor(server.url) as p:
        await p.start(defined("WITHOUT", dead_letter=False))
        assert await p.js.find_stream_name_by_subject("WITHOUT") == "WITHOUT"
        assert {info.config.name for info in await p.js.streams_info()} == {"WITHOUT"}
        await p.start(defined("WITH"))
        letters = await stream_of(p, "DEAD_LETTERS")
        assert letters.items() >= {"retention": "limits", "storage": "file", "discard": "old"}.items()
        assert letters["subjects"] == ["dead_letters.>"]
        await p.stop()


@pytest.mark.smoke
async def test_two_workers_that_start_at_once_on_nothing_both_stand(url: str, name: str) -> None:
    done: list[int] = []

    async def keep(job: Job[int]) -> None:
        done.append(job.payload)

    async with job_processor(url) as p, job_processor(url) as q:
        async with anyio.create_task_group() as group:
            for processor in (p, q):
                group.start_soon(processor.start, defined(name, perform=keep))

        await p.enqueue_many(name, range(20))
        await until_empty(p.js, name)
        await p.stop()
        await q.stop()

    assert sorted(done) == list(range(20))


async def test_many_workers_that_start_at_once_on_a_new_server_all_stand() -> None:
    def worker(number: int) -> JobDef[Any]:
        consumer = ConsumerConfig(durable_name=f"worker-{number}", filter_subject=f"jobs.{number}")
        return defined("JOBS", stream_config=StreamConfig(subjects=["jobs.*"]), consumer_config=consumer)

    async with run_server() as server, job_processor(server.url) as p:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(p.start, worker(number))

        assert (await p.js.stream_info("JOBS")).state.consumer_count == 8
        await p.stop()


# Something is there...


async def test_it_binds_to_what_a_node_worker_made_and_lifts_only_two_limits(url: str, name: str) -> None:
    done: list[int] = []

    async def keep(job: Job[int]) -> None:
        done.append(job.attempt)

    async with job_processor(url) as p:
        await make_what_node_makes(p, name)
        before = await stream_of(p, name), await consumer_of(p, name)
        await p.enqueue(name, 1)
        await p.start(defined(name, perform=keep))
        await until_empty(p.js, name)
        assert await stream_of(p, name) == before[0]
        assert await consumer_of(p, name) == before[1] | {"max_deliver": 25, "max_ack_pending": -1}
        await p.stop()

    assert done == [1]


@pytest.mark.parametrize("max_deliver", [-1, 25, 1000])
async def test_a_max_deliver_that_is_large_enough_stays(url: str, name: str, max_deliver: int) -> None:
    async with job_processor(url) as p:
        await make_stream(p, name)
        await make_consumer(p, name, max_deliver=max_deliver)
        await p.start(defined(name))
        assert (await consumer_of(p, name))["max_deliver"] == max_deliver
        await p.stop()


async def test_starting_again_changes_nothing(url: str, name: str) -> None:
    defn = defined(
        name,
        filter_subject=f"{name}.a",
        stream_config=StreamConfig(subjects=[f"{name}.*"], metadata={"owner": "me"}, max_age=3600.5),
        consumer_config=ConsumerConfig(ack_wait=0.7, metadata={"owner": "me"}),
    )
    async with (
        job_processor(url) as p,
        p.connection.subscribe(f"$JS.EVENT.ADVISORY.STREAM.UPDATED.{name}") as updates,
    ):
        states = []
        for _ in range(2):
            handle = await p.start(defn)
            states.append((await stream_of(p, name), await consumer_of(p, name)))
            await handle.stop()

        await p.connection.flush()
        assert updates.pending == 0

    assert states[0] == states[1]


async def test_it_binds_to_what_nats_py_made_with_other_settings_and_keeps_the_servers_lease(
    url: str, name: str
) -> None:
    seen = Seen()
    attempts: list[int] = []

    async def outlast(job: Job[int]) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            await anyio.sleep_forever()

    async with job_processor(url, on_event=seen) as p:
        await p.js.add_stream(
            StreamConfig(
                name=name,
                subjects=[f"{name}.*"],
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.MEMORY,
                max_msgs_per_subject=1000,
            )
        )
        consumer = ConsumerConfig(durable_name="theirs", ack_wait=1.5, max_deliver=-1, max_ack_pending=10)
        await p.js.add_consumer(name, consumer)
        before = await stream_of(p, name), await consumer_of(p, name, "theirs")
        defn = defined(
            name,
            perform=outlast,
            consumer_config=ConsumerConfig(durable_name="theirs"),
            auto_extend_ack_timeout=False,
        )
        await p.start(defn)
        assert (await stream_of(p, name), await consumer_of(p, name, "theirs")) == before
        # Ours would be 10 s: that the lease of 1.5 s ends is what counts here.
        await p.enqueue(f"{name}.a", 1)
        lost = (await seen.wait_for(LeaseLost))[0]
        assert lost.consumer_config.ack_wait == 1.5
        await until(lambda: attempts == [1, 2])
        await p.stop()

    assert seen.of(Receive)[0].subject == f"{name}.a"


@pytest.mark.smoke
async def test_asked_for_differences_that_the_server_can_change_are_changed(url: str, name: str) -> None:
    defn = defined(
        name,
        stream_config=StreamConfig(
            subjects=[name, f"{name}.more"],
            max_msgs=10,
            discard=DiscardPolicy.NEW,
            description="ours",
            deny_purge=True,
        ),
        consumer_config=ConsumerConfig(ack_wait=3, max_ack_pending=5, description="ours", max_deliver=9),
    )
    async with job_processor(url) as p:
        await make_what_node_makes(p, name)
        await p.start(defn)
        stream, consumer = await stream_of(p, name), await consumer_of(p, name)
        await p.stop()

    assert stream["subjects"] == [name, f"{name}.more"]
    changed = {
        "max_msgs": 10,
        "discard": "new",
        "description": "ours",
        "deny_purge": True,
        "max_age": WEEK * NS,
    }
    assert stream.items() >= changed.items()
    assert (
        consumer.items()
        >= {
            "ack_wait": 3 * NS,
            "max_ack_pending": 5,
            "description": "ours",
            "max_deliver": 9,
        }.items()
    )


async def test_what_is_changed_of_a_thing_that_others_may_share_is_logged(
    url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = defined(
        name, stream_config=StreamConfig(max_msgs=10), consumer_config=ConsumerConfig(ack_wait=3)
    )
    after = defined(name, stream_config=StreamConfig(max_msgs=20), consumer_config=ConsumerConfig(ack_wait=4))
    with caplog.at_level(logging.INFO, "nats_jobs"):
        async with job_processor(url) as p:
            await (await p.start(before)).stop()
            assert "changed" not in caplog.text
            await (await p.start(after)).stop()

    assert f"stream {name} was changed: max_msgs from 10 to 20" in caplog.text
    assert f"consumer {name}Consumer was changed: ack_wait from {3 * NS} to {4 * NS}" in caplog.text


@pytest.mark.parametrize(
    "after",
    [
        {"republish": RePublish(src=">", dest="copies.>")},
        {"allow_rollup_hdrs": True},
        {"mirror_direct": True},
        {"max_age": 30},
        {"subject_transform": SubjectTransform(src="a", dest="b")},
    ],
    ids=lambda after: str(*after),
)
async def test_whether_a_setting_can_be_changed_is_for_the_server_to_say(
    url: str, name: str, after: dict[str, Any]
) -> None:
    """Which settings these are differs from release to release, and no list of ours knows them."""
    async with job_processor(url) as p:
        await make_what_node_makes(p, name)
        await p.start(defined(name, stream_config=StreamConfig(**after)))
        stream = await stream_of(p, name)
        await p.stop()

    assert stream.items() >= explicit_fields(StreamConfig(**after)).items()


async def test_a_setting_is_taken_back_to_the_default_of_nats_py_by_the_definition_that_set_it(
    url: str, name: str
) -> None:
    def with_discard(discard: DiscardPolicy) -> JobDef[Any]:
        return defined(name, stream_config=StreamConfig(max_msgs=9, discard=discard))

    async with job_processor(url) as p:
        for wanted in (DiscardPolicy.NEW, DiscardPolicy.OLD, DiscardPolicy.NEW, DiscardPolicy.OLD):
            await (await p.start(with_discard(wanted))).stop()
            assert (await stream_of(p, name))["discard"] == wanted.value

        await p.stop()


async def test_a_setting_of_others_is_not_reset_by_leaving_it_out(url: str, name: str) -> None:
    theirs = StreamConfig(max_msgs=9, discard=DiscardPolicy.NEW, subjects=[f"{name}.*"])
    first = defined(name, stream_config=theirs, filter_subject=f"{name}.a")
    second = defined(
        name,
        stream_config=StreamConfig(max_msgs=9, subjects=[f"{name}.*"]),
        filter_subject=f"{name}.b",
        consumer_config=ConsumerConfig(durable_name="second"),
    )
    async with job_processor(url) as p:
        for defn in (first, second):
            await p.start(defn)
            assert (await stream_of(p, name))["discard"] == "new"

        await p.stop()


async def test_a_shorter_lease_for_workers_that_may_be_running_is_a_warning(
    url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with job_processor(url) as p:
        for ack_wait, warned in ((3, False), (4, False), (2, True)):
            await (await p.start(defined(name, consumer_config=ConsumerConfig(ack_wait=ack_wait)))).stop()
            assert ("ack_wait is lowered from 4 to 2 s" in caplog.text) == warned

        await p.stop()


async def test_without_update_nothing_that_exists_is_changed(url: str, name: str) -> None:
    async with job_processor(url) as p:
        await make_what_node_makes(p, name)
        before = await stream_of(p, name), await consumer_of(p, name)
        with pytest.raises(ConfigMismatch, match="max_msgs: ours 10, server's -1"):
            await p.start(defined(name, update=False, stream_config=StreamConfig(max_msgs=10)))

        with pytest.raises(ConfigMismatch, match="ack_wait"):
            await p.start(defined(name, update=False, consumer_config=ConsumerConfig(ack_wait=3)))

        # What was not asked for is no difference; nor is max_deliver raised.
        await p.start(defined(name, update=False))
        assert (await stream_of(p, name), await consumer_of(p, name)) == before
        await p.stop()


async def test_what_nats_py_does_not_know_survives_an_update(url: str, name: str) -> None:
    async with job_processor(url) as p:
        await make_stream(p, name, metadata={"theirs": "1", "both": "theirs"})
        # Fields that nats-py's ConsumerConfig does not have.
        await make_consumer(p, name, max_batch=7, max_expires=60 * NS, metadata={"theirs": "1"})
        defn = defined(
            name,
            stream_config=StreamConfig(description="ours", metadata={"ours": "1", "both": "ours"}),
            consumer_config=ConsumerConfig(description="ours", metadata={"ours": "1"}),
        )
        await p.start(defn)
        stream, consumer = await stream_of(p, name), await consumer_of(p, name)
        await p.stop()

    assert stream["metadata"].items() >= {"theirs": "1", "ours": "1", "both": "ours"}.items()
    assert consumer.items() >= {"max_batch": 7, "max_expires": 60 * NS, "description": "ours"}.items()
    assert consumer["metadata"].items() >= {"theirs": "1", "ours": "1"}.items()


@pytest.mark.parametrize("after", FILTERS)
@pytest.mark.parametrize("before", FILTERS)
async def test_a_filter_can_be_changed_from_each_of_its_forms_into_each(
    url: str, name: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    before, after = (json.loads(json.dumps(form).replace("X.", f"{name}.")) for form in (before, after))
    async with job_processor(url) as p:
        await make_stream(p, name, subjects=[f"{name}.*"])
        await make_consumer(p, name, **before)
        await p.start(defined(name, consumer_config=ConsumerConfig(**after)))
        consumer = await consumer_of(p, name)
        await p.stop()

    assert {field: consumer[field] for field in consumer if field.startswith("filter_")} == (after or before)


# What cannot work...


@pytest.mark.parametrize(
    ("config", "field", "ours", "servers", "words"),
    [
        (
            StreamConfig(storage=StorageType.MEMORY),
            "storage",
            "memory",
            "file",
            "can not change storage type",
        ),
        (
            StreamConfig(retention=RetentionPolicy.LIMITS),
            "retention",
            "limits",
            "workqueue",
            "can not change retention policy",
        ),
    ],
)
@pytest.mark.smoke
async def test_a_stream_that_cannot_be_changed_is_a_mismatch_with_both_sides_and_the_servers_words(
    url: str, name: str, config: StreamConfig, field: str, ours: Any, servers: Any, words: str
) -> None:
    async with job_processor(url) as p:
        await make_what_node_makes(p, name)
        with pytest.raises(ConfigMismatch) as refused:
            await p.start(defined(name, stream_config=config))

        assert (refused.value.kind, refused.value.name) == ("stream", name)
        assert refused.value.differences == (Difference(field, ours, servers),)
        text = str(refused.value)
        assert name in text
        assert f"({field}: ours {ours!r}, server's {servers!r})" in text
        assert words in text
        assert "delete" not in text


async def test_a_consumer_that_cannot_be_changed_is_a_mismatch_that_names_every_field(
    url: str, name: str
) -> None:
    async with job_processor(url) as p:
        await make_what_node_makes(p, name)
        config = ConsumerConfig(max_waiting=7, mem_storage=True, ack_wait=5)
        with pytest.raises(ConfigMismatch) as refused:
            await p.start(defined(name, consumer_config=config))

        assert (refused.value.kind, refused.value.name) == ("consumer", f"{name}Consumer")
        assert {difference.field for difference in refused.value.differences} == {
            "max_waiting",
            "mem_storage",
            "ack_wait",
            "max_deliver",
            "max_ack_pending",
        }
        assert "max_waiting: ours 7, server's 512" in str(refused.value)
        assert "can not be updated" in refused.value.reason
        assert (await consumer_of(p, name))["ack_wait"] == 10 * NS


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"backoff": [NS, 2 * NS], "max_deliver": 5}, "backoff"),
        ({"deliver_subject": "somewhere"}, "deliver_subject"),
        ({"ack_policy": "none", "max_deliver": -1}, "ack_policy"),
        ({"ack_policy": "all"}, "ack_policy"),
    ],
)
async def test_a_consumer_that_jobs_cannot_be_pulled_from_is_refused(
    url: str, name: str, config: dict[str, Any], field: str
) -> None:
    async with job_processor(url) as p:
        await make_stream(p, name, retention="limits")
        await make_consumer(p, name, **config)
        with pytest.raises(ConfigMismatch, match=field) as refused:
            await p.start(defined(name))

        assert field in {difference.field for difference in refused.value.differences}


async def test_subjects_that_belong_to_another_stream_are_refused_in_the_servers_words(
    url: str, name: str
) -> None:
    async with job_processor(url) as p:
        await make_stream(p, f"{name}_OTHER", subjects=[name])
        with pytest.raises(SetupFailed, match="overlap") as refused:
            await p.start(defined(name))

        assert (refused.value.kind, refused.value.name) == ("stream", name)


async def test_a_second_consumer_on_the_same_work_is_refused_in_the_servers_words(
    url: str, name: str
) -> None:
    async with job_processor(url) as p:
        await make_what_node_makes(p, name)
        with pytest.raises(SetupFailed, match="workqueue") as refused:
            await p.start(defined(name, consumer_config=ConsumerConfig(durable_name="second")))

        assert (refused.value.kind, refused.value.name) == ("consumer", "second")


async def test_more_replicas_than_servers_are_refused_in_the_servers_words(url: str, name: str) -> None:
    async with job_processor(url) as p:
        with pytest.raises(SetupFailed, match="replicas"):
            await p.start(defined(name, stream_config=StreamConfig(num_replicas=3)))


async def test_a_server_without_jetstream_is_named_as_the_reason() -> None:
    async with run_server(jetstream=False) as server, job_processor(server.url) as p:
        with pytest.raises(SetupFailed, match="is it enabled"), anyio.fail_after(20):
            await p.start(defined("ORDERS"))


async def test_an_account_without_jetstream_is_named_as_the_reason() -> None:
    config = "accounts { A { users = [{user: a, password: a}] } }"
    async with run_server(config=config) as server, job_processor(server.url, user="a", password="a") as p:
        with pytest.raises(SetupFailed, match=r"(?i)jetstream"), anyio.fail_after(20):
            await p.start(defined("ORDERS"))


# Where set-up errors come out...


async def test_start_raises_in_place_and_the_other_workers_go_on(url: str, name: str) -> None:
    done: list[int] = []

    async def keep(job: Job[int]) -> None:
        done.append(job.payload)

    async with job_processor(url) as p:
        handle = await p.start(defined(name, perform=keep))
        await make_stream(p, f"{name}_BAD", storage="memory")
        bad = defined(f"{name}_BAD", stream_config=StreamConfig(storage=StorageType.FILE))
        for _ in range(2):
            with pytest.raises(ConfigMismatch):
                await p.start(bad)

        await p.enqueue(name, 7)
        await until_empty(p.js, name)
        # What was wrong can be mended and tried again.
        await p.js.delete_stream(f"{name}_BAD")
        await p.start(bad)
        await p.stop()

    assert done == [7]
    assert handle.statistics().completed == 1


async def test_start_soon_raises_out_of_the_block(url: str, name: str) -> None:
    cancelled = False
    with pytest.raises(ConfigMismatch, match="storage"):
        async with job_processor(url) as p:
            await make_stream(p, name)
            p.start_soon(defined(name, stream_config=StreamConfig(storage=StorageType.MEMORY)))
            try:
                await anyio.sleep_forever()
            finally:
                cancelled = True

    assert cancelled


# Deliveries that run out...


async def test_a_delivery_that_reaches_max_deliver_is_parked_unperformed_as_a_crash_loop(
    url: str, name: str
) -> None:
    seen = Seen()
    performed: list[int] = []

    async def keep(job: Job[int]) -> None:
        performed.append(job.attempt)

    async with job_processor(url, on_event=seen) as p:
        await make_stream(p, name)
        await make_consumer(p, name, max_deliver=21)
        await p.enqueue(name, "killer", id="killer")
        # Workers that die of it: 20 deliveries come to nothing.
        for _ in range(20):
            await deliver_and_give_back(p, name)

        await p.start(defined(name, perform=keep, num_attempts=1))
        await until_empty(p.js, name)
        letter = await p.js.get_last_msg("DEAD_LETTERS", f"dead_letters.{name}.{name}")
        await p.stop()

    assert performed == []
    assert [(event.reason, event.attempt) for event in seen.of(DeadLettered)] == [("crash-loop", 21)]
    assert letter.headers is not None
    assert letter.headers["Nats-Jobs-Reason"] == "crash-loop"
    assert letter.headers["Nats-Jobs-Attempts"] == "21"


async def test_a_delivery_just_before_is_still_performed(url: str, name: str) -> None:
    performed: list[int] = []

    async def keep(job: Job[int]) -> None:
        performed.append(job.attempt)

    async with job_processor(url) as p:
        await make_stream(p, name)
        await make_consumer(p, name, max_deliver=21)
        await p.enqueue(name, 1)
        for _ in range(19):
            await deliver_and_give_back(p, name)

        await p.start(defined(name, perform=keep, num_attempts=1))
        await until_empty(p.js, name)
        await p.stop()

    assert performed == [20]


async def deliver_and_give_back(p: JobProcessor, name: str) -> None:
    """Be a worker that takes one message and does not see it through."""
    body = json.dumps({"batch": 1, "expires": 5 * NS}).encode()
    inbox = p.connection.new_inbox()
    async with p.connection.subscribe(inbox) as replies:
        await p.connection.publish(f"$JS.API.CONSUMER.MSG.NEXT.{name}.{name}Consumer", body, inbox)
        with anyio.fail_after(20):
            message = await replies.receive()

    assert message.reply.startswith("$JS.ACK"), message
    await p.connection.request(message.reply, b"-NAK")


async def until_running(handle: JobHandle[Any]) -> None:
    await until(lambda: handle.running)


async def test_a_job_interrupted_on_the_last_delivery_that_the_user_allows_is_parked(
    url: str, name: str
) -> None:
    seen = Seen()

    async def too_long(job: Job[int]) -> None:
        await anyio.sleep_forever()

    defn = defined(name, perform=too_long, num_attempts=2, consumer_config=ConsumerConfig(max_deliver=2))
    async with job_processor(url, on_event=seen) as p:
        for start in range(2):
            handle = await p.start(defn)
            assert (await consumer_of(p, name))["max_deliver"] == 2
            if start == 0:
                await p.enqueue(defn, 1)

            await until_running(handle)
            await handle.stop(grace=0)

        assert await in_stream(p.js, name) == 0
        letter = await p.js.get_last_msg("DEAD_LETTERS", f"dead_letters.{name}.{name}")

    assert [event.reason for event in seen.of(Interrupted)] == ["stop"]
    assert [(event.reason, event.attempt) for event in seen.of(DeadLettered)] == [("interrupted", 2)]
    assert letter.headers is not None
    assert letter.headers["Nats-Jobs-Reason"] == "interrupted"


async def test_a_job_that_fails_on_the_last_delivery_that_the_user_allows_is_exhausted(
    url: str, name: str
) -> None:
    seen = Seen()

    async def fail(job: Job[int]) -> None:
        raise Retry(0) if job.attempt == 1 else ValueError("no")

    defn = defined(name, perform=fail, num_attempts=2, consumer_config=ConsumerConfig(max_deliver=2))
    async with job_processor(url, on_event=seen) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until_empty(p.js, name)
        await p.stop()

    assert [event.attempts_exhausted for event in seen.of(Error)] == [True]
    assert [event.reason for event in seen.of(DeadLettered)] == ["exhausted"]


@pytest.mark.parametrize("soon", [True, False], ids=["start_soon", "start"])
async def test_a_worker_that_is_stopped_while_nobody_answers_its_set_up_ends_at_once(soon: bool) -> None:
    async with run_server() as server, job_processor(server.url) as p:
        async with anyio.create_task_group() as group:
            # The connection stands, and JetStream is silent: as a node is that is cut off from its cluster.
            server.signal(signal.SIGSTOP)
            if soon:
                p.start_soon(defined("JOBS"))
            else:
                group.start_soon(p.start, defined("JOBS"))

            await anyio.sleep(0.1)
            # It would go on asking for 20 s.
            with anyio.fail_after(10):
                await p.stop()

        server.signal(signal.SIGCONT)


async def test_workers_that_give_a_stream_a_subject_at_once_do_not_double_its_messages(
    url: str, name: str
) -> None:
    """A server subscribes twice to a subject that two requests add in the same moment, and stores its messages twice."""
    rounds = [f"{name}_{number}" for number in range(30)]
    async with AsyncExitStack() as stack:
        processors = [await stack.enter_async_context(job_processor(url)) for _ in range(4)]
        outside = processors[0]
        for stream in rounds:
            await outside.js.add_stream(StreamConfig(name=stream, subjects=[stream]))
            new = StreamConfig(subjects=[stream, f"{stream}.new"], retention=RetentionPolicy.LIMITS)
            defn = JobDef[Any](stream=stream, perform=perform, stream_config=new)
            async with anyio.create_task_group() as group:
                for p in processors:
                    group.start_soon(partial(set_up, p.api, defn, patience=LIMIT))

            # Without an id, by which the second one would be recognised.
            await outside.js.publish(f"{stream}.new", b"x")

        assert [await in_stream(outside.js, stream) for stream in rounds] == [1] * len(rounds)
