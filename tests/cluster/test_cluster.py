"""Three nodes, three replicas, workers in processes of their own: nodes come and go, and no confirmed job is lost."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import Error as JetStreamError

from nats_jobs import Job, JobDef, JobProcessor, Reject, codecs, job_processor
from nats_jobs.errors import NatsJobsError
from nats_jobs.events import DeadLettered
from support.cluster import ELECTION_LIMIT, Cluster, Node, run_cluster
from support.jobs import Seen, in_stream, until
from support.worker import Ledger, worker_process

# One at a time: two clusters on two cores stretch each other's elections.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400), pytest.mark.xdist_group("cluster")]

logger = logging.getLogger(__name__)

BATCH = 50
# How many jobs may wait: the producer is at work, too, when a node goes.
AHEAD = 200
SLEEP = 0.02
# Seconds for one run. It bounds a hang; a run takes half a minute.
RUN_LIMIT = 300.0


class Run:
    """Jobs that are enqueued and performed while something happens to the cluster.

    Args:
        count: how many jobs.
    """

    def __init__(self, cluster: Cluster, p: JobProcessor, stream: str, ledger: Ledger, count: int) -> None:
        self.cluster = cluster
        self.p = p
        self.stream = stream
        self.ledger = ledger
        self.count = count
        self.confirmed_at: list[float] = []
        self.faults: list[tuple[str, float]] = []

    async def produce(self) -> None:
        """Enqueue all jobs, in both ways. Every one is confirmed, or this raises."""
        for start in range(0, self.count, BATCH):
            await self.at_least_ended(start - AHEAD)
            jobs = [{"n": start + number, "sleep": SLEEP} for number in range(BATCH)]
            await self.p.enqueue_many(self._defn(), jobs[1:])
            await self.p.enqueue(self._defn(), jobs[0])
            self.confirmed_at.append(time.monotonic())

    async def part_done(self, part: float) -> None:
        """Wait until this part of all jobs has ended."""
        await self.at_least_ended(part * self.count)

    async def at_least_ended(self, count: float) -> None:
        await until(lambda: self.ledger.ended() >= count, RUN_LIMIT)

    async def go_on(self) -> None:
        """Wait until jobs are enqueued and performed again."""
        ended, confirmed = self.ledger.ended(), len(self.confirmed_at)
        await until(lambda: self.ledger.ended() >= min(ended + BATCH, self.count), ELECTION_LIMIT)
        await until(lambda: len(self.confirmed_at) > min(confirmed, self.count // BATCH - 1), ELECTION_LIMIT)

    def happens(self, what: str) -> None:
        assert self.ledger.ended() < self.count, f"too late for {what}: all jobs have ended"
        self.faults.append((what, time.monotonic()))

    async def all_done(self) -> None:
        """Wait until each job is settled."""
        await until(lambda: _is_empty(self.p, self.stream), RUN_LIMIT)

    async def stream_leader(self) -> Node:
        return await self.cluster.stream_leader(self.p.js, self.stream)

    async def consumer_leader(self) -> Node:
        return await self.cluster.consumer_leader(self.p.js, self.stream, f"{self.stream}Consumer")

    async def stand(self) -> None:
        """Make the stream and its consumer, on three nodes, by starting a worker."""
        handle = await self.p.start(self._defn())
        await handle.stop()

    def _defn(self) -> JobDef[Any]:
        return JobDef(
            stream=self.stream,
            perform=_never,
            codec=codecs.JSON,
            stream_config=StreamConfig(num_replicas=3),
            consumer_config=ConsumerConfig(ack_wait=10),
        )

    def report(self) -> None:
        """Say how long jobs were not served, and how many were performed again."""
        ends = sorted(entry["at"] for entry in self.ledger.read("end"))
        again = sum(entry["fence"][1] > 1 for entry in self.ledger.read("start"))
        # What ends later than the last is enqueued may have waited for its ack_wait instead.
        for (what, at), (_, until_next) in pairwise([*self.faults, ("", self.confirmed_at[-1])]):
            logger.info(
                "%s: performing stood still for %.1f s, enqueueing for %.1f s",
                what,
                _longest_gap(ends, at, until_next),
                _longest_gap(self.confirmed_at, at, until_next),
            )

        logger.info(
            "%d jobs: %d redeliveries, %d ends, %d lost; all had ended %.1f s after the last was enqueued",
            self.count,
            again,
            len(ends),
            self.count - len(set(self.ledger.numbers("end"))),
            ends[-1] - self.confirmed_at[-1],
        )


async def _never(job: Job[Any]) -> None:
    raise AssertionError("jobs are performed by the worker processes")


def _longest_gap(moments: list[float], start: float, end: float) -> float:
    """Return the longest pause that ended between the two."""
    return max((after - before for before, after in pairwise(moments) if start < after < end), default=0.0)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with run_cluster() as cluster:
        yield cluster


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@asynccontextmanager
async def _running(cluster: Cluster, stream: str, ledger: Ledger, count: int) -> AsyncIterator[Run]:
    """Have jobs enqueued here and performed by a worker of each kind; in the end look whether all went well."""
    urls = ",".join(cluster.urls)
    async with job_processor(urls, reconnect_time_wait=0.5) as p:
        run = Run(cluster, p, stream, ledger, count)
        await run.stand()
        with ExitStack() as stack, anyio.fail_after(RUN_LIMIT):
            # The first one knows one node only, the one that will have trouble, and learns of the others from it.
            leader = await run.consumer_leader()
            workers = [
                stack.enter_context(worker_process(url, stream, ledger, backend=backend))
                for url, backend in ((leader.url, "asyncio"), (urls, "trio"))
            ]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run.produce)
                yield run

            await run.all_done()
            for worker in workers:
                worker.signal(signal.SIGTERM)

            codes = [await worker.wait(60) for worker in workers]

        run.report()
        assert codes == [0, 0]
        assert set(ledger.numbers("end")) == set(range(count))
        assert await _parked(p) == 0


async def _kill_leader(run: Run, leader: Callable[[], Awaitable[Node]], what: str) -> None:
    """Kill a leader, go on without it, and have it back."""
    node = await leader()
    run.happens(f"the leader of the {what} was killed")
    await node.kill()
    await run.go_on()
    await node.restart()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_no_job_is_lost_when_the_leader_of_the_stream_is_killed(
    cluster: Cluster, name: str, ledger: Ledger
) -> None:
    async with _running(cluster, name, ledger, 600) as run:
        await run.part_done(0.3)
        await _kill_leader(run, run.stream_leader, "stream")


LONG = 5000


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_no_job_of_5000_is_lost_when_leaders_are_killed_one_after_the_other(
    cluster: Cluster, name: str, ledger: Ledger
) -> None:
    async with _running(cluster, name, ledger, LONG) as run:
        await run.part_done(0.1)
        await _kill_leader(run, run.stream_leader, "stream")
        await run.part_done(0.4)
        await _kill_leader(run, run.consumer_leader, "consumer")
        await run.part_done(0.7)
        await _kill_leader(run, run.stream_leader, "stream")


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_no_job_of_5000_is_lost_when_leaders_of_stream_and_consumer_leave_in_order(
    cluster: Cluster, name: str, ledger: Ledger
) -> None:
    async with _running(cluster, name, ledger, LONG) as run:
        for part, what, leader in (
            (0.2, "stream", run.stream_leader),
            (0.6, "consumer", run.consumer_leader),
        ):
            await run.part_done(part)
            node = await leader()
            run.happens(f"the leader of the {what} left")
            await node.terminate()
            await run.go_on()
            await node.restart()


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_no_job_of_5000_is_lost_while_all_nodes_are_restarted_one_after_the_other(
    cluster: Cluster, name: str, ledger: Ledger
) -> None:
    async with _running(cluster, name, ledger, LONG) as run:
        for part, node in zip((0.1, 0.4, 0.7), cluster.nodes, strict=True):
            await run.part_done(part)
            run.happens(f"{node.name} was restarted")
            await node.terminate()
            await node.restart()
            await run.go_on()


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_worker_leaves_a_node_in_lame_duck_mode_by_itself_and_no_job_of_5000_is_lost(
    cluster: Cluster, name: str, ledger: Ledger
) -> None:
    async with _running(cluster, name, ledger, LONG) as run:
        await run.part_done(0.2)
        node = await run.consumer_leader()
        assert await node.clients() > 0
        run.happens(f"{node.name} became a lame duck")
        node.lame_duck()

        async def deserted() -> bool:
            return await node.clients() == 0

        # Within the grace period of the node: it still runs, and has thrown nobody out.
        await until(deserted)
        assert node.running
        await run.go_on()
        # It would stay for the rest of its grace period.
        await node.kill()
        await node.restart()


async def test_a_new_stream_on_three_nodes_is_ready_when_start_returns(cluster: Cluster, name: str) -> None:
    performed: list[int] = []

    async def perform(job: Job[int]) -> None:
        performed.append(job.payload)

    for number in range(5):
        stream = f"{name}_{number}"
        defn = JobDef(stream=stream, perform=perform, stream_config=StreamConfig(num_replicas=3))
        async with job_processor(cluster.urls) as p:
            await p.start(defn)
            await p.enqueue(defn, number)
            await until(partial(performed.__contains__, number))
            assert (await p.js.stream_info(stream)).config.num_replicas == 3
            assert (await p.js.consumer_info(stream, f"{stream}Consumer")).stream_name == stream
            await p.stop()


async def test_a_job_that_outlives_a_change_of_leaders_is_performed_once(cluster: Cluster, name: str) -> None:
    fences: list[tuple[int, int]] = []
    go_on = anyio.Event()

    async def perform(job: Job[int]) -> None:
        fences.append(job.fence)
        await go_on.wait()
        await job.working()

    defn = JobDef(
        stream=name,
        perform=perform,
        stream_config=StreamConfig(num_replicas=3),
        consumer_config=ConsumerConfig(ack_wait=30),
    )
    async with job_processor(cluster.urls, reconnect_time_wait=0.5) as p:
        await p.start(defn)
        await p.enqueue(defn, 1)
        await until(lambda: fences)
        node = await cluster.consumer_leader(p.js, name, f"{name}Consumer")
        await node.terminate()
        await cluster.consumer_leader(p.js, name, f"{name}Consumer")
        go_on.set()
        await until(lambda: _is_empty(p, name), ELECTION_LIMIT)
        await p.stop()

    assert fences == [(1, 1)]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_jobs_are_parked_and_workers_start_whichever_node_is_down(cluster: Cluster, name: str) -> None:
    seen = Seen()

    async def perform(job: Job[None]) -> None:
        raise Reject("never")

    defn = JobDef(stream=name, perform=perform, stream_config=StreamConfig(num_replicas=3))
    async with job_processor(cluster.urls, on_event=seen, reconnect_time_wait=0.5) as p:
        handle = await p.start(defn)
        node = await cluster.stream_leader(p.js, "DEAD_LETTERS")
        await node.kill()
        await p.enqueue(defn, None)
        await until(lambda: seen.of(DeadLettered), ELECTION_LIMIT)
        await handle.stop()
        await p.start(defn)
        await p.stop()

    assert [event.reason for event in seen.of(DeadLettered)] == ["rejected"]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_worker_that_starts_while_a_leader_is_elected_waits_for_it(
    cluster: Cluster, name: str
) -> None:
    performed: list[int] = []

    async def perform(job: Job[int]) -> None:
        performed.append(job.payload)

    defn = JobDef(stream=name, perform=perform, stream_config=StreamConfig(num_replicas=3))
    async with job_processor(cluster.urls, reconnect_time_wait=0.5) as p:
        handle = await p.start(defn)
        await handle.stop()
        await p.enqueue(defn, 7)
        node = await cluster.stream_leader(p.js, name)

    await node.kill()
    async with job_processor([other.url for other in cluster.others(node)]) as p:
        await p.start(defn)
        await until(lambda: performed)
        await p.stop()

    assert performed == [7]


async def _is_empty(p: JobProcessor, stream: str) -> bool:
    """Whether no job is left. Nobody knows while there is no leader."""
    try:
        return await in_stream(p.js, stream) == 0
    except (JetStreamError, NatsJobsError):
        return False


async def _parked(p: JobProcessor) -> int:
    """Return how many dead letters there are; ask again while their stream elects a leader, too."""
    with anyio.fail_after(ELECTION_LIMIT):
        while True:
            try:
                return await in_stream(p.js, "DEAD_LETTERS")
            except (JetStreamError, NatsJobsError):
                await anyio.sleep(0.1)
