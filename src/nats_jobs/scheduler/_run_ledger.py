"""The ledger of functions that recur: to claim a tick is all there is to it, so each is run at most once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..jetstream import JetStreamApi
from ._claim_ledger import BUCKET, BUCKET_STREAM
from ._ledger import Revision, Stored, TickJob
from ._record import Record, dump_record, load_record
from ._record_store import RecordStore

__all__ = ("RunLedger",)


class RunLedger:
    """See `Ledger`. The bucket must have been created.

    Args:
        on_claimed: called with each tick that is to be run here.
    """

    stream = BUCKET_STREAM

    def __init__(self, api: JetStreamApi, on_claimed: Callable[[datetime], None] | None = None) -> None:
        self._store = RecordStore(api, BUCKET_STREAM, f"$KV.{BUCKET}.recurring")
        self._on_claimed = on_claimed

    async def read(self, id: str) -> Stored | None:
        slot = await self._store.read(id)
        return None if slot is None else Stored(load_record(slot.data), slot.revision)

    async def write(self, record: Record, expected: Revision) -> Stored:
        return Stored(record, await self._store.write(record.id, dump_record(record), expected))

    async def enqueue(self, record: Record, expected: Revision, job: TickJob) -> Stored:
        stored = await self.write(record, expected)
        if self._on_claimed is not None and record.last is not None:
            self._on_claimed(record.last)

        return stored

    async def ids(self) -> list[str]:
        return await self._store.ids()
