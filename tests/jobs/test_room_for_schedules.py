"""Streams that keep schedules: which are made so, which are changed, and which consumers are kept clear of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js.api import ConsumerConfig, DiscardPolicy, StreamConfig

from nats_jobs import Job, JobDef, JobProcessor, delays, job_processor

pytestmark = pytest.mark.anyio

WITH = StreamConfig(allow_msg_schedules=True)


async def perform(job: Job[Any]) -> None: ...


def defined(name: str, **fields: Any) -> JobDef[Any]:
    return JobDef(**{"stream": name, "perform": perform, **fields})


@pytest.fixture
async def p(url: str) -> AsyncIterator[JobProcessor]:
    async with job_processor(url) as p:
        if await p.api.level() < delays.MIN_API_LEVEL:
            pytest.skip("nats-server 2.12 and newer")

        yield p


async def stream_of(p: JobProcessor, name: str) -> dict[str, Any]:
    return (await p.api.stream(name)).config


async def consumer_of(p: JobProcessor, name: str) -> dict[str, Any]:
    return (await p.api.consumer(name, f"{name}Consumer")).config


async def started(p: JobProcessor, defn: JobDef[Any]) -> None:
    await (await p.start(defn)).stop()


@pytest.mark.parametrize(
    "config",
    [
        StreamConfig(),
        StreamConfig(discard=DiscardPolicy.NEW),
        StreamConfig(allow_msg_schedules=False),
        StreamConfig(allow_msg_schedules=True, subjects=["X", "nats_jobs.schedules.X.x"]),
    ],
)
async def test_a_stream_that_is_to_have_no_schedules_or_cannot_is_made_as_it_was_asked_for(
    p: JobProcessor, name: str, config: StreamConfig
) -> None:
    subjects = [subject.replace("X", name) for subject in config.subjects or ["X"]]
    await started(p, defined(name, stream_config=config.evolve(subjects=subjects)))
    assert not delays.has_schedules(await stream_of(p, name))
    assert not delays.filters_of(await consumer_of(p, name))
    await p.js.delete_stream(name)


async def test_a_consumer_that_wants_everything_in_its_stream_is_given_no_schedules(
    p: JobProcessor, name: str
) -> None:
    consumer = ConsumerConfig(filter_subject=">")
    await started(p, defined(name, stream_config=WITH, consumer_config=consumer))
    assert not delays.has_schedules(await stream_of(p, name))


async def test_a_stream_that_exists_is_given_schedules_only_by_a_definition_that_asks_for_them(
    p: JobProcessor, name: str
) -> None:
    await p.js.add_stream(StreamConfig(name=name, subjects=[f"{name}.*"]))
    await started(p, defined(name))
    assert not delays.has_schedules(await stream_of(p, name))
    await started(p, defined(name, stream_config=WITH))
    config = await stream_of(p, name)
    assert delays.has_schedules(config)
    assert (config["allow_msg_ttl"], config["allow_atomic"]) == (True, True)
    assert delays.filters_of(await consumer_of(p, name)) == [f"{name}.*"]
    # The old definition neither takes them back nor the filter.
    await started(p, defined(name))
    assert await stream_of(p, name) == config
    assert delays.filters_of(await consumer_of(p, name)) == [f"{name}.*"]


async def test_without_update_neither_stream_nor_consumer_is_changed(p: JobProcessor, name: str) -> None:
    await started(p, defined(name, stream_config=WITH))
    await p.js.delete_consumer(name, f"{name}Consumer")
    await p.js.add_consumer(name, ConsumerConfig(durable_name=f"{name}Consumer"))
    before = await stream_of(p, name), await consumer_of(p, name)
    await started(p, defined(name, update=False))
    await started(p, defined(name, update=False, stream_config=WITH))
    assert (await stream_of(p, name), await consumer_of(p, name)) == before
    await started(p, defined(name))
    assert delays.filters_of(await consumer_of(p, name)) == [name]


async def test_subjects_that_are_asked_for_do_not_take_the_schedules_away(
    p: JobProcessor, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for subjects in ([f"{name}.a"], [f"{name}.a", f"{name}.b"], [f"{name}.c"]):
        for asked in (WITH.evolve(subjects=subjects), StreamConfig(subjects=subjects)):
            caplog.clear()
            await started(p, defined(name, stream_config=asked))
            config = await stream_of(p, name)
            assert delays.has_schedules(config)
            assert delays.job_subjects(config) == subjects
            # A filter of ours follows the subjects of the stream.
            assert delays.filters_of(await consumer_of(p, name)) == subjects

        assert "was changed" not in caplog.text


async def test_a_filter_of_the_user_is_not_widened(p: JobProcessor, name: str) -> None:
    config = WITH.evolve(subjects=[f"{name}.*"])
    await started(p, defined(name, stream_config=config, filter_subject=f"{name}.a"))
    await started(p, defined(name, stream_config=config))
    assert delays.filters_of(await consumer_of(p, name)) == [f"{name}.a"]


@pytest.mark.parametrize(
    ("filters", "covers"),
    [
        ([], True),
        (["S"], False),
        (["S.>"], False),
        ([">"], True),
        (["S", "nats_jobs.*.S.>"], True),
        (["*.*.*.x"], True),
        (["*.*"], False),
        (["nats_jobs.schedules.T.>"], False),
        (["nats_jobs.schedules.S"], False),
    ],
)
def test_a_consumer_covers_schedules_when_some_subject_of_theirs_matches(
    filters: list[str], covers: bool
) -> None:
    assert delays.covers_schedules({"filter_subjects": filters}, "S") is covers
    if len(filters) == 1:
        assert delays.covers_schedules({"filter_subject": filters[0]}, "S") is covers
