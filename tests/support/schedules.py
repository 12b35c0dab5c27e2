"""Ledgers and records for tests of schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from anyio.lowlevel import checkpoint

from nats_jobs import Job, JobDef, JobProcessor
from nats_jobs.scheduler import Every, Schedule
from nats_jobs.scheduler._declaration import declare
from nats_jobs.scheduler._ledger import RecordChanged, Revision, Stored, TickJob
from nats_jobs.scheduler._record import Record, dump_record, load_record
from support.jobs import until

__all__ = (
    "INTERVAL",
    "NOON",
    "FakeLedger",
    "ScheduledWorker",
    "at",
    "record_of",
    "schedule_of",
    "until_jobs_are_done",
)

INTERVAL = 0.2
NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return a moment so many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def schedule_of(**fields: Any) -> Schedule[Any]:
    return Schedule(**{"id": "s", "rule": "@every 1s", "target": "jobs", **fields})


def record_of(since: datetime = NOON, **fields: Any) -> Record:
    """Return the record of a schedule that was declared at `since`."""
    schedule = schedule_of(**fields)
    terms = declare(schedule, "JOBS").terms
    return Record(schedule.id, terms, schedule.version, declared_at=since, since=since)


class FakeLedger:
    """A ledger in memory, with the jobs in the order in which they were enqueued."""

    stream = "JOBS"

    def __init__(self) -> None:
        self.jobs: list[TickJob] = []
        self.writes = 0
        self._records: dict[str, tuple[bytes, Revision]] = {}
        self._revision: Revision = 0

    async def read(self, id: str) -> Stored | None:
        await checkpoint()
        data, revision = self._records.get(id, (b"", 0))
        return Stored(load_record(data), revision) if revision else None

    async def write(self, record: Record, expected: Revision) -> Stored:
        await checkpoint()
        return self._put(record, expected)

    async def enqueue(self, record: Record, expected: Revision, job: TickJob) -> Stored:
        await checkpoint()
        stored = self._put(replace(record, job=len(self.jobs) + 1), expected)
        self.jobs.append(job)
        return stored

    async def ids(self) -> list[str]:
        return sorted(self._records)

    def purge(self) -> None:
        self._records.clear()

    def headers(self) -> list[Mapping[str, str]]:
        return [job.headers for job in self.jobs]

    def _put(self, record: Record, expected: Revision) -> Stored:
        if self._records.get(record.id, (b"", 0))[1] != expected:
            raise RecordChanged

        self._revision += 1
        self.writes += 1
        self._records[record.id] = dump_record(record), self._revision
        return Stored(record, self._revision)


class ScheduledWorker:
    """Performs the jobs of a stream, and remembers their ticks."""

    def __init__(self, stream: str, **fields: Any) -> None:
        self.jobs: list[Job[Any]] = []
        self.defn = JobDef(stream=stream, perform=self._perform, **fields)

    async def _perform(self, job: Job[Any]) -> None:
        self.jobs.append(job)

    @property
    def ticks(self) -> list[datetime]:
        return [job.scheduled_for for job in self.jobs if job.scheduled_for is not None]

    def schedule(self, **fields: Any) -> Schedule[Any]:
        return Schedule(**{"id": self.defn.stream, "rule": Every(INTERVAL), "target": self.defn, **fields})

    def assert_each_once(self, interval: float = INTERVAL) -> None:
        """Each tick from the first to the last had one job, in order."""
        assert self.ticks
        assert all(later - tick == timedelta(seconds=interval) for tick, later in pairwise(self.ticks)), (
            self.ticks
        )


async def until_jobs_are_done(p: JobProcessor, worker: ScheduledWorker) -> None:
    async def done() -> bool:
        info = await p.js.consumer_info(worker.defn.stream, worker.defn.consumer)
        return not info.num_pending and not info.num_ack_pending

    await until(done)
