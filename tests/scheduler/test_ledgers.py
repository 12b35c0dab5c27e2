"""What every ledger promises: the one in the stream of the jobs, the one in a bucket, and the one that tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import pytest

from nats_jobs import JobProcessor, job_processor
from nats_jobs.errors import NoResponders, PublishRefused
from nats_jobs.scheduler import _claim_ledger
from nats_jobs.scheduler._batch_ledger import BatchLedger, record_prefix
from nats_jobs.scheduler._claim_ledger import ClaimLedger, create_bucket
from nats_jobs.scheduler._ledger import Ledger, RecordChanged, TickJob
from nats_jobs.scheduler._record import Record
from nats_jobs.scheduler._record_store import publish_once
from nats_jobs.scheduler._stream_setup import give_records
from support.schedules import FakeLedger, at, record_of

pytestmark = pytest.mark.anyio


def job_of(name: str, tick: int) -> TickJob:
    headers = {"Nats-Msg-Id": f"{name}:{tick}", "Nats-Expected-Stream": name, "Tick": str(tick)}
    return TickJob(name, headers, b"%d" % tick)


def named(name: str) -> Record:
    return replace(record_of(), id=name)


@pytest.fixture
async def p(url: str, name: str) -> AsyncIterator[JobProcessor]:
    async with job_processor(url) as p:
        await p.api.create_stream({"name": name, "subjects": [name], "retention": "workqueue"})
        yield p


@pytest.fixture(params=["batch", "claim", "fake"])
async def ledger(request: pytest.FixtureRequest, p: JobProcessor, name: str) -> Ledger:
    if request.param == "fake":
        return FakeLedger()

    if request.param == "claim":
        await create_bucket(p.api, 1)
        return ClaimLedger(p.api)

    if not await give_records(p.api, name, (await p.api.stream(name)).config):
        pytest.skip("atomic batches: nats-server 2.12 and newer")

    return BatchLedger(p.api, name)


async def test_a_record_is_read_as_it_was_written(ledger: Ledger, name: str) -> None:
    record = named(name)
    assert await ledger.read(name) is None
    first = await ledger.write(record, 0)
    assert await ledger.read(name) == first
    second = await ledger.write(replace(record, last=at(1)), first.revision)
    assert await ledger.read(name) == second
    assert name in await ledger.ids()


async def test_who_has_not_read_the_last_record_writes_and_enqueues_nothing(
    ledger: Ledger, name: str
) -> None:
    record = named(name)
    first = await ledger.write(record, 0)
    second = await ledger.enqueue(replace(record, last=at(1)), first.revision, job_of(name, 1))
    for stale in (0, first.revision):
        with pytest.raises(RecordChanged):
            await ledger.write(replace(record, last=at(9)), stale)

        with pytest.raises(RecordChanged):
            await ledger.enqueue(replace(record, last=at(9)), stale, job_of(name, 9))

    assert await ledger.read(name) == second


async def test_of_five_that_race_one_enqueues_each_tick(ledger: Ledger, p: JobProcessor, name: str) -> None:
    await ledger.write(named(name), 0)
    enqueued: list[int] = []

    async def claim() -> None:
        while len(enqueued) < 30:
            stored = await ledger.read(name)
            assert stored is not None
            tick = stored.record.count + 1
            record = replace(stored.record, count=tick, last=at(tick))
            try:
                await ledger.enqueue(record, stored.revision, job_of(name, tick))
            except RecordChanged:
                continue

            enqueued.append(tick)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(claim)

    # In which order the five go on once they are answered is the event loop's affair.
    assert sorted(enqueued) == list(range(1, len(enqueued) + 1))
    if isinstance(ledger, FakeLedger):
        assert [int(job.data) for job in ledger.jobs] == sorted(enqueued)
    else:
        assert (await p.api.request(f"STREAM.INFO.{name}", {"subjects_filter": name}))["state"][
            "subjects"
        ] == {name: len(enqueued)}


async def test_a_record_knows_the_sequence_of_its_job(ledger: Ledger, p: JobProcessor, name: str) -> None:
    first = await ledger.write(named(name), 0)
    stored = await ledger.enqueue(replace(first.record, count=1), first.revision, job_of(name, 1))
    assert await ledger.read(name) == stored
    if not isinstance(ledger, FakeLedger):
        message = await p.api.get_message(name, {"last_by_subj": name})
        assert message is not None
        assert message["seq"] == stored.record.job

    # And goes on knowing it when something else is written.
    assert (
        await ledger.write(replace(stored.record, paused=True), stored.revision)
    ).record.job == stored.record.job


# The ledger in the stream of the jobs...


@pytest.fixture
async def batch_ledger(p: JobProcessor, name: str) -> BatchLedger:
    if not await give_records(p.api, name, (await p.api.stream(name)).config):
        pytest.skip("atomic batches: nats-server 2.12 and newer")

    return BatchLedger(p.api, name)


async def test_a_job_that_the_stream_refuses_leaves_the_record_as_it_was(
    p: JobProcessor, batch_ledger: BatchLedger, name: str
) -> None:
    first = await batch_ledger.write(named(name), 0)
    elsewhere = job_of(name, 1)._replace(headers={"Nats-Expected-Stream": "ELSEWHERE"})
    with pytest.raises(PublishRefused):
        await batch_ledger.enqueue(replace(first.record, count=1), first.revision, elsewhere)

    assert await batch_ledger.read(name) == first


async def test_a_tick_whose_job_is_known_is_written_down_without_another_job(
    p: JobProcessor, batch_ledger: BatchLedger, name: str
) -> None:
    """The record was lost, and declared again by somebody who did not know how far it had come."""
    first = await batch_ledger.write(named(name), 0)
    await batch_ledger.enqueue(replace(first.record, last=at(1)), first.revision, job_of(name, 1))
    await p.api.purge(name, filter=f"{record_prefix(name)}.{name}")
    again = await batch_ledger.write(named(name), 0)
    stored = await batch_ledger.enqueue(replace(again.record, last=at(1)), again.revision, job_of(name, 1))
    assert stored.record.last == at(1)
    assert await batch_ledger.read(name) == stored
    assert (await p.api.stream(name)).state["messages"] == 2


async def test_a_record_outlives_the_max_age_of_the_jobs(p: JobProcessor, name: str, url: str) -> None:
    config = (await p.api.stream(name)).config
    config |= {"max_age": 1_000_000_000, "duplicate_window": 1_000_000_000}
    config = (await p.api.update_stream(config)).config
    if not await give_records(p.api, name, config):
        pytest.skip("atomic batches: nats-server 2.12 and newer")

    ledger = BatchLedger(p.api, name)
    first = await ledger.write(named(name), 0)
    stored = await ledger.enqueue(replace(first.record, count=1), first.revision, job_of(name, 1))

    async def is_old() -> bool:
        return bool((await p.api.stream(name)).state["messages"] == 1)

    with anyio.fail_after(30):
        while not await is_old():
            await anyio.sleep(0.1)

    assert await ledger.read(name) == stored


# The ledger in a bucket...


@pytest.fixture
async def claim_ledger(p: JobProcessor, monkeypatch: pytest.MonkeyPatch) -> ClaimLedger:
    monkeypatch.setattr(_claim_ledger, "_CLAIM_TIMEOUT", 0.1)
    await create_bucket(p.api, 1)
    return ClaimLedger(p.api)


@pytest.mark.parametrize("after_the_job", [False, True])
async def test_the_claim_of_one_who_died_is_carried_out_by_the_next_with_one_job(
    p: JobProcessor,
    claim_ledger: ClaimLedger,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    after_the_job: bool,
) -> None:
    first = await claim_ledger.write(named(name), 0)

    async def die(record: Record, claim: int, job: TickJob) -> None:
        if after_the_job:
            await publish_once(p.api, job.subject, job.headers, job.data)

        raise NoResponders("dead")

    with monkeypatch.context() as dying:
        dying.setattr(claim_ledger, "_carry_out", die)
        with pytest.raises(NoResponders):
            await claim_ledger.enqueue(replace(first.record, last=at(1)), first.revision, job_of(name, 1))

    stored = await claim_ledger.read(name)
    assert stored is not None
    assert stored.record.last == at(1)
    assert stored.record.job == 1
    assert (await p.api.stream(name)).state["messages"] == 1
    assert await claim_ledger.read(name) == stored


async def test_who_slept_after_its_claim_is_told_and_doubles_nothing(
    p: JobProcessor, claim_ledger: ClaimLedger, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await claim_ledger.write(named(name), 0)
    carry_out = claim_ledger._carry_out

    async def sleep_first(record: Record, claim: int, job: TickJob) -> object:
        monkeypatch.undo()
        monkeypatch.setattr(_claim_ledger, "_CLAIM_TIMEOUT", 0.1)
        stored = await claim_ledger.read(name)
        assert stored is not None
        assert stored.record.last == at(1)
        return await carry_out(record, claim, job)

    monkeypatch.setattr(claim_ledger, "_carry_out", sleep_first)
    with pytest.raises(RecordChanged):
        await claim_ledger.enqueue(replace(first.record, last=at(1)), first.revision, job_of(name, 1))

    assert (await p.api.stream(name)).state["messages"] == 1
