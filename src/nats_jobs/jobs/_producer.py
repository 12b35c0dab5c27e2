"""Enqueueing: encode, label, publish with a confirmation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from ..codecs import MSGPACK, Codec
from ..errors import EnqueueFailed, UsageError
from ..jetstream import Publication, publish, publish_many
from ..wire import Connection, HeaderInput, check_publish_subject, encode_headers, unique_token
from ._definition import JobDef
from ._not_before import NOT_BEFORE, not_before

__all__ = ("Enqueued", "Producer")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A job is stored in `stream` as `sequence`; or, when `duplicate`, had been stored before under the same id."""

    stream: str
    sequence: int
    duplicate: bool


class Producer:
    """Puts jobs into streams."""

    def __init__(self, connection: Connection, *, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    async def enqueue(
        self,
        target: JobDef[T] | str,
        payload: T,
        *,
        id: str | None,
        delay: float | None,
        at: datetime | None,
        headers: HeaderInput | None,
        subject: str | None,
    ) -> Enqueued:
        destination = _Destination.of(target, subject)
        publication = destination.publication(payload, id, not_before(delay, at), headers)
        ack = await publish(self._connection, publication, timeout=self._timeout)
        return Enqueued(ack.stream, ack.sequence, ack.duplicate)

    async def enqueue_many(
        self,
        target: JobDef[T] | str,
        payloads: Iterable[T],
        *,
        ids: Sequence[str] | None,
        delay: float | None,
        at: datetime | None,
        headers: HeaderInput | None,
        subject: str | None,
    ) -> list[Enqueued]:
        destination = _Destination.of(target, subject)
        # All are encoded before the first is sent: a bad one must not leave half of them enqueued.
        publications = list(destination.publications(payloads, ids, not_before(delay, at), headers))
        acks, failures = await publish_many(self._connection, publications, timeout=self._timeout)
        if failures:
            raise EnqueueFailed(dict(sorted(failures.items())), len(publications))

        return [Enqueued(ack.stream, ack.sequence, ack.duplicate) for _, ack in sorted(acks.items())]


@dataclass(frozen=True, slots=True)
class _Destination:
    subject: str
    stream: str | None
    codec: Codec

    @classmethod
    def of(cls, target: JobDef[Any] | str, subject: str | None) -> _Destination:
        if isinstance(target, JobDef):
            subject = _subject_of(target) if subject is None else subject
            return cls(check_publish_subject(subject), target.stream, target.encoder)

        if not isinstance(target, str):
            raise UsageError(f"target is {target!r}; a JobDef or a subject is needed")

        if subject is not None:
            raise UsageError(f"target is the subject {target!r}, and subject {subject!r} was given as well")

        return cls(check_publish_subject(target), None, MSGPACK)

    def publication(
        self, payload: object, id: str | None, wait_until: str | None, headers: HeaderInput | None
    ) -> Publication:
        return Publication(self.subject, self._block(id, wait_until, headers), self.codec.encode(payload))

    def publications(
        self,
        payloads: Iterable[object],
        ids: Sequence[str] | None,
        wait_until: str | None,
        headers: HeaderInput | None,
    ) -> Iterator[Publication]:
        encode = self.codec.encode
        payloads = list(payloads)
        if ids is not None and len(ids) != len(payloads):
            raise UsageError(f"{len(payloads)} payloads and {len(ids)} ids; give one id for each, or none")

        # The headers of all are the same but for the id; building the block once is most of the speed.
        stem = unique_token()
        before, _, after = self._block(stem, wait_until, headers).partition(stem.encode())
        for position, payload in enumerate(payloads):
            id = ids[position] if ids is not None else f"{stem}{position:x}"
            if ids is not None:
                _check_id(id)

            yield Publication(self.subject, b"%b%b%b" % (before, id.encode(), after), encode(payload))

    def _block(self, id: str | None, wait_until: str | None, headers: HeaderInput | None) -> bytes:
        theirs = _checked(headers)
        ours: dict[str, str | Sequence[str]] = {
            "Nats-Msg-Id": unique_token() if id is None else _check_id(id),
            "Content-Type": self.codec.content_type,
        }
        if self.stream is not None:
            ours["Nats-Expected-Stream"] = self.stream

        if wait_until is not None:
            ours[NOT_BEFORE] = wait_until

        return encode_headers(ours | theirs)


def _subject_of(defn: JobDef[Any]) -> str:
    """Where the jobs of a definition are published to: its filter, else the first plain subject of its stream."""
    consumer, stream = defn.consumer_config, defn.stream_config
    filters = (consumer.filter_subject, *(consumer.filter_subjects or ())) if consumer else ()
    candidates = [subject for subject in (defn.filter_subject, *filters) if subject]
    candidates = candidates or (stream and stream.subjects) or [defn.stream]
    for subject in candidates:
        if "*" not in subject and ">" not in subject:
            return subject

    raise UsageError(f"{defn} takes jobs on {', '.join(candidates)}; say which subject with subject=…")


def _check_id(id: Any) -> str:
    if not isinstance(id, str) or not id or any(mark in id for mark in "\r\n"):
        raise UsageError(f"id is {id!r}; a text of one line is needed")

    return str(id)


def _checked(headers: Any) -> dict[str, str | Sequence[str]]:
    if headers is None:
        return {}

    if not isinstance(headers, Mapping):
        raise UsageError(f"headers is {headers!r}; a mapping of names to texts is needed")

    for name, value in headers.items():
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in (name, *texts)):
            raise UsageError(f"headers: {name!r} is {value!r}; a text, or a list of texts, is needed")

    if "Nats-Msg-Id" in headers:
        raise UsageError("headers: Nats-Msg-Id is what id stands for; give it there")

    return dict(headers)
