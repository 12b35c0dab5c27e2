"""A delayed job that has not come to its time: it can be cancelled and be given another time.

At its time a server takes all schedules that are due out of its store, and only then stores their jobs: one that is ended
in between has its job stored all the same. So what counts is not that the server has ended it, but that its clock was
short of the time after that; and what is due within half a second is left alone. A job that waits with the workers is
theirs once the clock of the fastest has come to its time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from .._untrusted import field_of, parse_moment
from ..codecs import RAW, by_content_type
from ..errors import ApiError, DelayUncertain, NoSchedules, PublishRefused, UsageError
from ..jetstream import ErrorCode, JetStreamApi, publish, retrying
from ..wire import Headers, encode_headers, parse_headers
from ._message import headers_of_delayed_job, headers_of_schedule, id_in
from ._stream import schedules_of

__all__ = ("ScheduledJob",)

# Seconds for all tries of one request.
_PATIENCE = 10.0
_SERVERS_MARGIN = timedelta(seconds=0.5)
# By which the clocks of workers may differ.
_WORKERS_MARGIN = timedelta(seconds=60)
_CHANGED = (ErrorCode.WRONG_LAST_SEQUENCE, ErrorCode.LAST_SEQUENCE_CONFLICT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledJob:
    """A delayed job as it is stored. Made by `enqueue` and `JobProcessor.scheduled`."""

    stream: str
    sequence: int
    """Of what is stored now. A job that the server keeps is stored anew, under another sequence, at its time."""

    subject: str
    """The subject that its workers get it on."""

    due: datetime
    data: bytes = field(repr=False)
    schedule: str | None
    """The subject of the schedule that the server keeps; None for a job that its workers give back until its time."""

    outlives_max_age: bool = field(default=True, repr=False)
    block: bytes = field(repr=False)
    api: JetStreamApi = field(repr=False, compare=False)

    @property
    def headers(self) -> Headers:
        return parse_headers(self.block)

    @property
    def id(self) -> str | None:
        """The id that it was enqueued with; None when its publisher gave none."""
        return id_in(self.headers)

    def payload(self) -> Any:
        """Decode what was enqueued by its content type; bytes when that is not known.

        Raises:
            DecodeError: it cannot be decoded.
        """
        return (by_content_type(self.headers.get("Content-Type", "")) or RAW).decode(self.data)

    async def cancel(self) -> bool:
        """Remove the job; True: it will never be performed. False: too late, or somebody else has changed it.

        It is too late half a second before its time, by the clock of the server; for a job that waits with its workers
        (below nats-server 2.12, or in a stream without schedules), a minute.

        Raises:
            DelayUncertain: the answer came after its time; whether it is performed is not known.
            NotConfirmed, NoResponders, RequestTimeout, ConnectionLost: no answer in time; call it again to know.
            ApiError, PublishRefused, PermissionDenied: the server does not do it.
        """
        if not await self._is_early():
            return False

        if not await (self._delete() if self.schedule is None else self._end(self.schedule)):
            return False

        await self._check_in_time("cancelled")
        return True

    async def reschedule(self, at: datetime) -> ScheduledJob | None:
        """Give the job another time, in one step, and return it as it is now; None: too late, or somebody else has changed it.

        Args:
            at: an aware datetime; one that has passed means at once.

        Raises:
            NoSchedules: it waits with its workers; cancel it and enqueue another.
            UsageError: not an aware datetime.
            DelayUncertain and others: as `cancel`.
        """
        if at.tzinfo is None:
            raise UsageError(
                f"at is {at!r}; a datetime with a time zone is needed, such as datetime.now(UTC) is"
            )

        if self.schedule is None:
            version = str(self.api.connection.server_info.get("version", "?"))
            raise NoSchedules(
                self.stream, version, "a delayed job cannot be rescheduled; cancel it and enqueue another"
            )

        if not await self._is_early():
            return None

        sequence = await self._replace(self.schedule, at)
        if sequence is None:
            return None

        await self._check_in_time("rescheduled")
        return replace(self, sequence=sequence, due=at.astimezone(UTC))

    async def _end(self, schedule: str) -> bool:
        headers = {
            # Of this very schedule, so that a repeated try finds what the first one did.
            "Nats-Msg-Id": f"{schedule}:{self.sequence}:end",
            "Nats-Schedule-Next": "purge",
            "Nats-Scheduler": schedule,
            "Nats-Expected-Stream": self.stream,
            "Nats-Expected-Last-Subject-Sequence": str(self.sequence),
            "Nats-Expected-Last-Subject-Sequence-Subject": schedule,
        }
        if self.outlives_max_age:
            headers["Nats-TTL"] = "1s"

        subject = f"{schedules_of(self.stream).removesuffix('>')}ended"
        return await self._published(subject, encode_headers(headers), b"") is not None

    async def _replace(self, schedule: str, at: datetime) -> int | None:
        headers = headers_of_delayed_job(self.headers) | headers_of_schedule(
            self.id or "",
            self.stream,
            self.subject,
            at,
            outlives_max_age=self.outlives_max_age,
            expected=self.sequence,
        )
        headers["Nats-Msg-Id"] = f"{schedule}:{self.sequence}:{at.timestamp()}"
        return await self._published(schedule, encode_headers(headers), self.data)

    async def _published(self, subject: str, block: bytes, data: bytes) -> int | None:
        """Return the sequence; None when the schedule was not there as we know it."""
        try:
            return (await publish(self.api.connection, subject, block, data, timeout=_PATIENCE)).sequence
        except PublishRefused as error:
            if error.err_code not in _CHANGED:
                raise

            return None

    async def _delete(self) -> bool:
        """Remove the message. Who finds it removed, and has not come too late, may as well have done it."""
        if await self._message() is None:
            return False

        try:
            await retrying(
                lambda seconds: self.api.delete_message(self.stream, self.sequence, timeout=seconds),
                _PATIENCE,
            )
        except ApiError:
            if await self._message() is not None:
                raise

        return True

    async def _message(self) -> dict[str, Any] | None:
        return await retrying(
            lambda seconds: self.api.get_message(self.stream, {"seq": self.sequence}, timeout=seconds),
            _PATIENCE,
        )

    async def _is_early(self) -> bool:
        margin = _WORKERS_MARGIN if self.schedule is None else _SERVERS_MARGIN
        return self.due - await self._server_time() > margin

    async def _check_in_time(self, what: str) -> None:
        margin = _WORKERS_MARGIN if self.schedule is None else timedelta()
        if await self._server_time() >= self.due - margin:
            raise DelayUncertain(self.stream, self.sequence, what)

    async def _server_time(self) -> datetime:
        info = await retrying(lambda _: self.api.stream(self.stream), _PATIENCE)
        return parse_moment(field_of(info.fields, "ts", str, "STREAM.INFO"), "the time of the server")
