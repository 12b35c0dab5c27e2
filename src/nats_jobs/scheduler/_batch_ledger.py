"""The ledger in the stream of the jobs: record and job are one atomic batch. nats-server 2.12 and newer.

Exactly one job for each tick: who has not read the last record enqueues nothing.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import PublishRefused
from ..jetstream import BatchMessage, ErrorCode, JetStreamApi, publish_batch
from ._ledger import RecordChanged, Revision, Stored, TickJob
from ._record import Record, dump_record, load_record
from ._record_store import RecordStore, is_conflict

__all__ = ("BatchLedger", "record_prefix")

# In a record that is stored together with its job: nobody knows the sequence before, but that it is the next one.
_NEXT_MESSAGE = -1


def record_prefix(stream: str) -> str:
    """Return what the subjects of the records in a stream begin with."""
    return f"nats_jobs.schedules.{stream}.records"


class BatchLedger:
    """See `Ledger`. The stream must have been prepared for it."""

    def __init__(self, api: JetStreamApi, stream: str) -> None:
        self.stream = stream
        # A record outlives the `max_age` of the jobs.
        headers = {"Nats-Rollup": "sub", "Nats-TTL": "never"}
        self._store = RecordStore(api, stream, record_prefix(stream), headers)

    async def read(self, id: str) -> Stored | None:
        slot = await self._store.read(id)
        return None if slot is None else _resolved(load_record(slot.data), slot.revision)

    async def write(self, record: Record, expected: Revision) -> Stored:
        return Stored(record, await self._store.write(record.id, dump_record(record), expected))

    async def enqueue(self, record: Record, expected: Revision, job: TickJob) -> Stored:
        record = replace(record, job=_NEXT_MESSAGE)
        subject, headers = self._store.subject(record.id), self._store.headers(expected)
        messages = [BatchMessage(subject, headers, dump_record(record)), BatchMessage(*job)]
        try:
            ack = await publish_batch(self._store.api.connection, messages)
        except PublishRefused as error:
            if is_conflict(error):
                raise RecordChanged from error

            if error.err_code == ErrorCode.BATCH_HAS_DUPLICATE_ID:
                # Its job is known, although the record is not that far: it was lost, and declared again.
                return await self.write(replace(record, job=0), expected)

            raise

        return _resolved(record, ack.sequence - 1)

    async def ids(self) -> list[str]:
        return await self._store.ids()


def _resolved(record: Record, revision: Revision) -> Stored:
    return Stored(replace(record, job=revision + 1) if record.job == _NEXT_MESSAGE else record, revision)
