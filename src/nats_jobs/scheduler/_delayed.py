"""Payloads that wait for their time, each once: a subject made of its digest has room for one.

They are in a stream of their own. Where the server has schedules it keeps a payload until its time; below nats-server
2.12 the payload is stored at once, and who is given it sooner gives it back until then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from nats.js.api import StreamConfig

from .. import delays
from ..codecs import MSGPACK
from ..errors import PublishRefused, UsageError
from ..jetstream import ErrorCode, JetStreamApi, publish, retrying
from ..jobs import Job, JobDef, set_up_stream
from ..units import utc_text
from ..wire import encode_headers, unique_token

__all__ = ("Delayed", "DelayedPayloads", "check_id", "delayed_def", "subjects_of")

_STREAM = "NATS_JOBS_DELAYED"
_PREFIX = "nats_jobs.delayed"
# Seconds: a year, as for jobs.
_MAX_DELAY = 365 * 86_400.0
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CONFIG = StreamConfig(subjects=[f"{_PREFIX}.*.*"], max_age=0, allow_msg_schedules=True)


@dataclass(frozen=True, slots=True)
class Delayed:
    """One payload that is due."""

    payload: Any
    due: datetime


class DelayedPayloads:
    """Stores payloads for later.

    Args:
        timeout: seconds for which the server is asked again while it cannot answer.
    """

    def __init__(self, api: JetStreamApi, *, timeout: float) -> None:
        self._api = api
        self._timeout = timeout
        self._stream: dict[str, Any] | None = None

    async def schedule(self, id: str, payload: object, when: float | datetime) -> bool:
        """See `JobProcessor.schedule_delayed`."""
        check_id(id)
        due = _moment(when)
        data = MSGPACK.encode(payload)
        subject = subjects_of(id).replace("*", sha256(data).hexdigest()[:32])
        if await self._is_due(subject):
            return False

        place, headers = await self._place(subject, due)
        # A new one for each call: with it, a repeated try is known to be the same.
        headers |= {"Nats-Msg-Id": unique_token(), "Content-Type": MSGPACK.content_type}
        try:
            await publish(self._api.connection, place, encode_headers(headers), data, timeout=self._timeout)
        except PublishRefused as error:
            if error.err_code != ErrorCode.WRONG_LAST_SEQUENCE:
                # The stream may have been deleted, say, and is set up the next time.
                self._stream = None
                raise

            return False

        return True

    async def _is_due(self, subject: str) -> bool:
        """Whether it is there, but not settled: the server has it no longer among what it keeps for later."""
        which = {"last_by_subj": subject}
        message = await retrying(
            lambda seconds: self._api.get_message(_STREAM, which, timeout=seconds), self._timeout
        )
        return message is not None

    async def _place(self, subject: str, due: datetime) -> tuple[str, dict[str, str]]:
        """Return where a payload is put that is due on `subject`, and the headers by which only one is."""
        if self._stream is None:
            self._stream = await set_up_stream(self._api, delayed_def(), patience=self._timeout)

        headers = {delays.NOT_BEFORE: utc_text(due)}
        if not delays.has_schedules(self._stream):
            expected = {"Nats-Expected-Stream": _STREAM, "Nats-Expected-Last-Subject-Sequence": "0"}
            return subject, headers | expected

        id = sha256(subject.encode()).hexdigest()
        schedule = delays.headers_of_schedule(id, _STREAM, subject, due, outlives_max_age=True)
        return delays.subject_of_schedule(_STREAM, subject.encode()), headers | schedule


def delayed_def(**fields: Any) -> JobDef[Any]:
    """Return the definition whose stream the payloads are in."""
    defaults: dict[str, Any] = {"stream": _STREAM, "perform": _refuse, "stream_config": _CONFIG}
    return JobDef(**(defaults | fields))


def subjects_of(id: str) -> str:
    """Return where the payloads for one handler are once they are due."""
    return f"{_PREFIX}.{id}.*"


def check_id(id: Any) -> None:
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise UsageError(f"id is {id!r}; 1 to 64 of A-Z a-z 0-9 _ and - are needed")


async def _refuse(job: Job[Any]) -> None:
    raise AssertionError("only the stream of this definition is set up")


def _moment(when: Any) -> datetime:
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise UsageError(
                f"when is {when!r}; a datetime with a time zone is needed, such as datetime.now(UTC) is"
            )

        due = when.astimezone(UTC)
    else:
        due = _from_now(when)

    if due - datetime.now(UTC) > timedelta(seconds=_MAX_DELAY):
        raise UsageError(f"when is {when!r}, which is more than a year away")

    return due


def _from_now(seconds: Any) -> datetime:
    try:
        if not isinstance(seconds, bool):
            return datetime.now(UTC) + timedelta(seconds=seconds)
    except (TypeError, ValueError, OverflowError):
        # Not a number, or beyond the year 9999.
        pass

    raise UsageError(f"when is {seconds!r}; seconds from now, or an aware datetime, are needed")
