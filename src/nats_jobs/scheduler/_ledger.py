"""Where records are kept, and jobs enqueued with them: what every engine promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ._record import Record

__all__ = ("Ledger", "RecordChanged", "Revision", "Stored", "TickJob")

Revision = int
"""Of a record; 0 when there is none."""


class RecordChanged(Exception):
    """Somebody else has written the record, or may have: read it, and decide again. Nothing of ours was stored."""


class Stored(NamedTuple):
    """A record as it is kept."""

    record: Record
    revision: Revision


class TickJob(NamedTuple):
    """The job of one tick. Its headers have a message id that is always the same for the tick."""

    subject: str
    headers: Mapping[str, str]
    data: bytes


class Ledger(Protocol):
    """Keeps records by compare-and-set. Who has not read the last revision changes nothing, and is told so.

    Every method raises what a request to JetStream raises: what of it is retryable leaves open whether anything was
    written, so read again and decide.
    """

    @property
    def stream(self) -> str:
        """The stream that is asked what time it is."""
        ...

    async def read(self, id: str) -> Stored | None:
        """Return the record; None when there is none."""

    async def write(self, record: Record, expected: Revision) -> Stored:
        """Keep a record in place of the one with the revision `expected`.

        Raises:
            RecordChanged: that is not the last one.
        """
        ...

    async def enqueue(self, record: Record, expected: Revision, job: TickJob) -> Stored:
        """Keep a record, and enqueue a job of which it knows.

        Returns:
            The record with the sequence of the job in it.

        Raises:
            RecordChanged: `expected` is not the last revision. The job was not enqueued.
            PublishRefused: the stream does not take the job, and the record is as it was.
        """
        ...

    async def ids(self) -> list[str]:
        """Return the ids of all records."""
        ...
