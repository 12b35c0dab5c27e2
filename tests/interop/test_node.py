"""A worker of the Node library and one of ours share the work of one stream, whoever made it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.js.errors import NotFoundError

from nats_jobs import Job, JobDef, JobProcessor, codecs, job_processor
from support.jobs import LIMIT, until, until_empty
from support.node import install_node_library, node_process

pytestmark = pytest.mark.anyio

JOBS = 60


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_node_library(tmp_path_factory.mktemp("node"))


class Ours:
    """Our worker, as slow as the Node one, so that both get their share."""

    def __init__(self, name: str) -> None:
        self.done: list[int] = []
        self.attempts: list[int] = []
        self.defn = JobDef[dict[str, int]](stream=name, perform=self.perform, codec=codecs.JSON)

    async def perform(self, job: Job[dict[str, int]]) -> None:
        self.attempts.append(job.attempt)
        await anyio.sleep(0.05)
        self.done.append(job.payload["n"])


async def made(p: JobProcessor, name: str) -> bool:
    try:
        return bool(await p.js.consumer_info(name, f"{name}Consumer"))
    except NotFoundError:
        return False


@pytest.mark.parametrize("first", ["node", "ours"])
async def test_both_share_the_jobs_of_a_stream_that_either_of_them_made(
    node: Path, url: str, name: str, first: str
) -> None:
    ours = Ours(name)
    async with job_processor(url) as p:
        if first == "ours":
            await p.start(ours.defn)

        with node_process(node, "work", url, name) as theirs:
            await until(lambda: theirs.told("started"))
            await until(lambda: made(p, name))
            if first == "node":
                await p.start(ours.defn)

            await p.enqueue_many(ours.defn, [{"n": number} for number in range(JOBS)])
            await until_empty(p.js, name)
            await until(lambda: len(theirs.told("end")) + len(ours.done) >= JOBS)
            info = await p.js.consumer_info(name, f"{name}Consumer")
            await p.stop()
            their_jobs = [entry["n"] for entry in theirs.told("end")]
            with anyio.fail_after(LIMIT):
                assert await anyio.to_thread.run_sync(theirs.stop) == 0

    assert Counter(their_jobs + ours.done) == dict.fromkeys(range(JOBS), 1)
    assert their_jobs, "the Node worker got nothing to do"
    assert ours.done, "our worker got nothing to do"
    assert set(ours.attempts) == {1}
    assert (info.num_pending, info.num_ack_pending, info.num_redelivered) == (0, 0, 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_node_worker_that_stops_leaves_its_jobs_to_ours(node: Path, url: str, name: str) -> None:
    ours = Ours(name)
    async with job_processor(url) as p:
        with node_process(node, "work", url, name) as theirs:
            await until(lambda: made(p, name))
            await p.enqueue_many(ours.defn, [{"n": number} for number in range(20)])
            await until(lambda: theirs.told("start"))
            await anyio.to_thread.run_sync(theirs.stop)
            their_jobs = [entry["n"] for entry in theirs.told("end")]

        # What it had taken and not performed comes back when the lease of 10 s is over.
        await p.start(ours.defn)
        await until_empty(p.js, name)
        await p.stop()

    assert set(their_jobs) | set(ours.done) == set(range(20))
    assert their_jobs
    assert ours.done


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_what_node_sends_is_read(node: Path, url: str, name: str) -> None:
    got: list[Any] = []

    async def keep(job: Job[Any]) -> None:
        got.append(job.payload)

    when = datetime(2026, 11, 23, 12, 30, 0, 123_000, UTC)
    payload = {"text": "grüß", "list": [1, 2.5, None, True], "when": when}
    as_json = payload | {"when": "2026-11-23T12:30:00.123Z"}
    async with job_processor(url) as p:
        await p.start(JobDef(stream=name, perform=keep))
        with node_process(node, "publish", url, name) as publisher:
            await until(lambda: publisher.process.poll() == 0)

        await until_empty(p.js, name)
        await p.stop()

    assert got[:2] == [as_json, payload]
    # Without a label it is bytes.
    assert codecs.JSON.decode(got[2]) == as_json
