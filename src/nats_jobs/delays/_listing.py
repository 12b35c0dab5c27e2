"""Finding delayed jobs that have not come to their time, in the order of their sequences."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from functools import partial
from typing import Any

from .._untrusted import field_of, parse_moment
from ..errors import Malformed
from ..jetstream import JetStreamApi, retrying
from ..wire import Headers, encode_headers, parse_headers
from ._message import NOT_BEFORE, delayed_jobs_of, due_of, headers_of_delayed_job
from ._scheduled import ScheduledJob
from ._stream import has_schedules, schedules_of

__all__ = ("find", "scheduled_jobs", "streams_with_schedules")

_PATIENCE = 10.0
# Messages that one call looks at: without schedules, delayed jobs lie among all others.
_MAX_READ = 10_000
_WHAT = "a delayed job"
_NAMES = "STREAM.NAMES"


async def find(api: JetStreamApi, stream: str, schedule: str) -> ScheduledJob | None:
    """Return the delayed job that the server keeps on a subject; None when there is none."""
    message = await _message(api, stream, {"last_by_subj": schedule})
    return None if message is None else _read(api, stream, message)


async def streams_with_schedules(api: JetStreamApi) -> list[str]:
    """Return the names of the streams whose delayed jobs the server keeps."""
    found: list[str] = []
    while True:
        body = {"subject": schedules_of("*"), "offset": len(found)}
        page = await retrying(partial(_names, api, body), _PATIENCE)
        names = field_of(page, "streams", list, _NAMES, [])
        found += map(str, names)
        if not names or len(found) >= field_of(page, "total", int, _NAMES, 0):
            return found


async def _names(api: JetStreamApi, body: dict[str, Any], seconds: float) -> dict[str, Any]:
    return await api.request(_NAMES, body, timeout=seconds)


async def scheduled_jobs(api: JetStreamApi, stream: str, *, after: int, limit: int) -> list[ScheduledJob]:
    """Return up to `limit` delayed jobs whose sequence is above `after`."""
    info = await retrying(lambda _: api.stream(stream), _PATIENCE)
    subject = delayed_jobs_of(stream) if has_schedules(info.config) else ">"
    found: list[ScheduledJob] = []
    for _ in range(_MAX_READ):
        if len(found) == limit:
            break

        message = await _message(api, stream, {"seq": after + 1, "next_by_subj": subject})
        if message is None:
            break

        after = field_of(message, "seq", int, _WHAT)
        job = _read(api, stream, message)
        if job is not None:
            found.append(job)

    return found


async def _message(api: JetStreamApi, stream: str, which: dict[str, Any]) -> dict[str, Any] | None:
    return await retrying(lambda seconds: api.get_message(stream, which, timeout=seconds), _PATIENCE)


def _read(api: JetStreamApi, stream: str, message: dict[str, Any]) -> ScheduledJob | None:
    """Return a delayed job; None when it is another message, or one whose time has come."""
    try:
        headers = parse_headers(b64decode(field_of(message, "hdrs", str, _WHAT, "")))
        subject = field_of(message, "subject", str, _WHAT)
        is_kept = "Nats-Schedule" in headers
        due = due_of(headers) if is_kept else parse_moment(headers.get(NOT_BEFORE, ""), NOT_BEFORE)
        return ScheduledJob(
            api=api,
            stream=stream,
            sequence=field_of(message, "seq", int, _WHAT),
            subject=headers.get("Nats-Schedule-Target", "") if is_kept else subject,
            due=due,
            data=b64decode(field_of(message, "data", str, _WHAT, "")),
            schedule=subject if is_kept else None,
            outlives_max_age="Nats-TTL" in headers,
            block=_block(headers),
        )
    except (Malformed, NotBase64):
        return None


def _block(headers: Headers) -> bytes:
    kept = headers_of_delayed_job(headers)
    id = headers.get("Nats-Msg-Id")
    return encode_headers(kept | {"Nats-Msg-Id": id} if id and "Nats-Schedule" not in headers else kept)
