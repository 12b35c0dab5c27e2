"""What the code under test has enqueued."""

from __future__ import annotations

from base64 import b64decode
from typing import Any, TypeVar

from .._untrusted import field_of
from ..jobs import JobDef, PayloadOf, Processor, codec_for, set_up_stream, subject_of
from ..wire import Headers, parse_headers

__all__ = ("assert_enqueued", "enqueued_payloads", "set_up_streams")

T = TypeVar("T")
_WHAT = "a stored job"


async def set_up_streams(p: Processor, *definitions: JobDef[Any]) -> None:
    """Create the streams of these definitions, as their workers would, so that jobs can be enqueued that nobody performs.

    Raises:
        ConfigMismatch, SetupFailed: a stream cannot be created, or be changed to what its definition asks for.
    """
    for defn in definitions:
        await set_up_stream(p.api, defn, patience=p.enqueue_timeout)


async def enqueued_payloads(p: Processor, defn: JobDef[T], *, subject: str | None = None) -> list[T]:
    """Return the payloads of all jobs of a definition that are stored, the oldest first, decoded as for its handler.

    A job that is done is not stored any more, unless its stream keeps what was acknowledged. Delayed jobs come last.

    Args:
        subject: of the jobs. Default: the one that `enqueue` uses for the definition.

    Raises:
        DecodeError: one of them cannot be decoded.
        ApiError: there is no such stream, for instance: see `set_up_streams`.
        NoResponders, RequestTimeout, ConnectionLost: the server did not answer.
    """
    subject = subject_of(defn) if subject is None else subject
    stored = await _stored(p, defn.stream, subject)
    stored += [
        (job.headers, job.data)
        for job in await p.scheduled(defn)
        if job.schedule is not None and job.subject == subject
    ]
    return [codec_for(headers.get("Content-Type"), defn.decoder).decode(data) for headers, data in stored]


async def assert_enqueued(
    p: Processor, defn: JobDef[T], payload: PayloadOf[T], *, subject: str | None = None
) -> None:
    """Raise AssertionError, with what is there instead, unless a job with this payload is stored.

    Args:
        payload: compared as a handler would get it: a tuple, for instance, that arrives as a list, equals that list.
        subject: as for `enqueued_payloads`, which also says what else is raised.
    """
    encoder = defn.encoder
    expected = codec_for(encoder.content_type, defn.decoder).decode(encoder.encode(payload))
    found = await enqueued_payloads(p, defn, subject=subject)
    if expected not in found:
        raise AssertionError(f"no job of {defn} with the payload {expected!r}; stored are: {found!r}")


async def _stored(p: Processor, stream: str, subject: str) -> list[tuple[Headers, bytes]]:
    found: list[tuple[Headers, bytes]] = []
    after = 0
    while message := await p.api.get_message(stream, {"seq": after + 1, "next_by_subj": subject}):
        after = field_of(message, "seq", int, _WHAT)
        headers = parse_headers(b64decode(field_of(message, "hdrs", str, _WHAT, "")))
        found.append((headers, b64decode(field_of(message, "data", str, _WHAT, ""))))

    return found
