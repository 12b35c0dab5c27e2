"""What a handler in another process is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from ._job import Fence, Job

__all__ = ("DetachedJob", "detach")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachedJob(Generic[T]):
    """The facts of a `Job`, without its connection; the names are the same."""

    payload: T
    data: bytes
    subject: str
    headers: dict[str, str]
    id: str | None
    stream: str
    sequence: int
    attempt: int
    num_attempts: int
    enqueued_at: datetime
    pending: int
    fence: Fence


def detach(job: Job[Any]) -> DetachedJob[Any]:
    return DetachedJob(
        payload=job.payload,
        data=job.data,
        subject=job.subject,
        headers=dict(job.headers),
        id=job.id,
        stream=job.stream,
        sequence=job.sequence,
        attempt=job.attempt,
        num_attempts=job.num_attempts,
        enqueued_at=job.enqueued_at,
        pending=job.pending,
        fence=job.fence,
    )
