"""What `enqueue` returns for a delayed job."""

from __future__ import annotations

from datetime import datetime

from ..jetstream import Enqueued, JetStreamApi
from ._listing import find
from ._scheduled import ScheduledJob

__all__ = ("EnqueuedLater",)


class EnqueuedLater(Enqueued):
    """The confirmation of a delayed job, which can be cancelled and rescheduled."""

    _job: ScheduledJob | None
    _find: tuple[JetStreamApi, str] | None

    @classmethod
    def of(cls, ack: Enqueued, job: ScheduledJob) -> EnqueuedLater:
        self = cls(*ack)
        self._job = job
        self._find = None
        return self

    @classmethod
    def earlier(cls, ack: Enqueued, api: JetStreamApi, schedule: str) -> EnqueuedLater:
        """Of a job that was enqueued before under the same id, and perhaps for another time."""
        self = cls(*ack)
        self._job = None
        self._find = (api, schedule)
        return self

    async def cancel(self) -> bool:
        job = await self._now()
        return job is not None and await job.cancel()

    async def reschedule(self, at: datetime) -> bool:
        job = await self._now()
        if job is None or (changed := await job.reschedule(at)) is None:
            return False

        self._job = changed
        return True

    async def _now(self) -> ScheduledJob | None:
        if self._job is None and self._find is not None:
            api, schedule = self._find
            self._job = await find(api, self.stream, schedule)

        return self._job
