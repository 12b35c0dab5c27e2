"""How jobs of one kind are sent that wait: with their workers, or at the server."""

from __future__ import annotations

import re
from datetime import datetime

from .. import delays
from ..errors import PublishRefused
from ..jetstream import Enqueued, ErrorCode, JetStreamApi
from ..units import utc_text
from ..wire import encode_headers, unique_token
from ._destination import Destination
from ._route import Headers, Route

__all__ = ("DelayedRoute", "ScheduleRoute")


class DelayedRoute(Route):
    """To be stored at once, and given back by the workers until its time."""

    def __init__(self, api: JetStreamApi, destination: Destination, due: datetime, theirs: Headers) -> None:
        super().__init__(destination.subject, destination.labels({delays.NOT_BEFORE: utc_text(due)}, theirs))
        self._api = api
        self._due = due

    def confirmed(self, ack: Enqueued, id: bytes, data: bytes) -> Enqueued:
        job = delays.ScheduledJob(
            api=self._api,
            stream=ack.stream,
            sequence=ack.sequence,
            subject=self.subject,
            due=self._due,
            data=data,
            schedule=None,
            block=self.address(id)[1],
        )
        return delays.EnqueuedLater.of(ack, job)


class ScheduleRoute(DelayedRoute):
    """To be kept by the server until its time, on a subject that is made of the id: one of each can wait."""

    def __init__(
        self, api: JetStreamApi, destination: Destination, home: delays.Home, due: datetime, theirs: Headers
    ) -> None:
        place = unique_token()
        schedule = delays.headers_of_schedule(
            place, home.stream, destination.subject, due, outlives_max_age=home.has_ttl
        )
        Route.__init__(self, destination.subject, {}, ())
        self._api = api
        self._due = due
        self._home = home
        headers = {"Nats-Msg-Id": place} | destination.labels(schedule, theirs)
        self._parts = encode_headers(headers).split(place.encode())

    def address(self, id: bytes) -> tuple[str, bytes]:
        return delays.subject_of_schedule(self._home.stream, id), id.join(self._parts)

    def confirmed(self, ack: Enqueued, id: bytes, data: bytes) -> Enqueued:
        schedule, block = self.address(id)
        if ack.duplicate:
            return delays.EnqueuedLater.earlier(ack, self._api, schedule)

        job = delays.ScheduledJob(
            api=self._api,
            stream=ack.stream,
            sequence=ack.sequence,
            subject=self.subject,
            due=self._due,
            data=data,
            schedule=schedule,
            outlives_max_age=self._home.has_ttl,
            block=block,
        )
        return delays.EnqueuedLater.of(ack, job)

    def earlier(self, error: Exception, id: bytes) -> Enqueued | None:
        if not isinstance(error, PublishRefused) or error.err_code != ErrorCode.WRONG_LAST_SEQUENCE:
            return None

        # "wrong last sequence: 7"
        said = re.search(r"([0-9]{1,20})$", error.reason)
        ack = Enqueued(self._home.stream, int(said[1]) if said else 0, duplicate=True)
        return delays.EnqueuedLater.earlier(ack, self._api, self.address(id)[0])
