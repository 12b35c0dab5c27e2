"""The ledger in a key-value bucket: a claim is written, then the job, then that it is done. Every server version.

Nothing is lost: a claim that stays undone is taken over, and its job enqueued once more under the same message id. That
doubles the job only if who made the claim died, or slept, after the job was stored and before that was written, and the
id was forgotten meanwhile: the stream's duplicate window was over, or the server started again after the job was done.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any, NamedTuple

import anyio

from .._untrusted import field_of, parse_json
from ..errors import ApiError, Malformed
from ..jetstream import ErrorCode, JetStreamApi
from ._ledger import Revision, Stored, TickJob
from ._record import MAX_RECORD_BYTES, Record, record_as_json, record_from_json
from ._record_store import RecordStore, publish_once

__all__ = ("BUCKET", "BUCKET_STREAM", "ClaimLedger", "create_bucket")

BUCKET = "nats_jobs_schedules"
BUCKET_STREAM = f"KV_{BUCKET}"
_WHAT = "the record of a schedule"
# Seconds for which a claim is left to whoever made it.
_CLAIM_TIMEOUT = 3.0
_POLL_INTERVAL = 0.05


async def create_bucket(api: JetStreamApi, replicas: int) -> None:
    """See to it that the bucket exists."""
    config = {
        "name": BUCKET_STREAM,
        "subjects": [ClaimLedger.subjects],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "storage": "file",
        "num_replicas": replicas,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "deny_delete": True,
    }
    try:
        await api.create_stream(config)
    except ApiError as error:
        if error.err_code != ErrorCode.STREAM_NAME_IN_USE:
            raise


class _Entry(NamedTuple):
    record: Record
    job: TickJob | None
    """Claimed, and perhaps not enqueued."""


class ClaimLedger:
    """See `Ledger`. The bucket must have been created."""

    stream = BUCKET_STREAM
    subjects = f"$KV.{BUCKET}.>"

    def __init__(self, api: JetStreamApi) -> None:
        self._api = api
        self._store = RecordStore(api, BUCKET_STREAM, f"$KV.{BUCKET}")

    async def read(self, id: str) -> Stored | None:
        """Return the record, when no claim is open: one that stays open for 3 seconds is carried out here."""
        claim: Revision = 0
        waited = 0.0
        while True:
            slot = await self._store.read(id)
            if slot is None:
                return None

            entry = _load(slot.data)
            if entry.job is None:
                return Stored(entry.record, slot.revision)

            if slot.revision != claim:
                claim, waited = slot.revision, 0.0

            if waited >= _CLAIM_TIMEOUT:
                taken_over = await self._store.write(id, slot.data, slot.revision)
                return await self._carry_out(entry.record, taken_over, entry.job)

            await anyio.sleep(_POLL_INTERVAL)
            waited += _POLL_INTERVAL

    async def write(self, record: Record, expected: Revision) -> Stored:
        return Stored(record, await self._store.write(record.id, _dump(record, None), expected))

    async def enqueue(self, record: Record, expected: Revision, job: TickJob) -> Stored:
        claim = await self._store.write(record.id, _dump(record, job), expected)
        return await self._carry_out(record, claim, job)

    async def ids(self) -> list[str]:
        return await self._store.ids()

    async def _carry_out(self, record: Record, claim: Revision, job: TickJob) -> Stored:
        # The id makes it one job, whoever enqueues it how often.
        ack = await publish_once(self._api, job.subject, job.headers, job.data)
        return await self.write(replace(record, job=ack.sequence), claim)


def _dump(record: Record, job: TickJob | None) -> bytes:
    form: dict[str, Any] = {"record": record_as_json(record)}
    if job is not None:
        data = b64encode(job.data).decode()
        form["job"] = {"subject": job.subject, "headers": dict(job.headers), "data": data}

    return json.dumps(form, separators=(",", ":")).encode()


def _load(data: bytes) -> _Entry:
    form = parse_json(data, _WHAT, max_bytes=MAX_RECORD_BYTES)
    record = record_from_json(field_of(form, "record", dict, _WHAT))
    job = field_of(form, "job", dict, _WHAT, {})
    return _Entry(record, _load_job(job) if job else None)


def _load_job(form: dict[str, Any]) -> TickJob:
    headers = field_of(form, "headers", dict, _WHAT)
    if not all(isinstance(value, str) for value in headers.values()):
        raise Malformed(_WHAT, "a header of its job is not text")

    try:
        data = b64decode(field_of(form, "data", str, _WHAT), validate=True)
    except ValueError:
        raise Malformed(_WHAT, "its job is not base64") from None

    return TickJob(field_of(form, "subject", str, _WHAT), headers, data)
