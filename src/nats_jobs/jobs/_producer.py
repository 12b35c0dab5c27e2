"""Enqueueing: encode, label, publish with a confirmation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import count, islice
from threading import get_ident
from typing import Any, TypeVar

from ..codecs import MSGPACK, RAW, Codec, by_content_type
from ..errors import EnqueueFailed, UsageError
from ..jetstream import Enqueued, publish, publish_many
from ..wire import Connection, HeaderInput, check_publish_subject, encode_headers, unique_token
from ._definition import JobDef, PayloadOf
from ._not_before import MAX_DELAY, NOT_BEFORE, not_before

__all__ = ("Producer", "checked_headers", "subject_of")

T = TypeVar("T")

_MAX_DESTINATIONS = 256


class Producer:
    """Puts jobs into streams."""

    def __init__(self, connection: Connection, *, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._thread = get_ident()
        # Of its own, so that definitions do not outlive the producers that know them.
        self._destination = lru_cache(maxsize=_MAX_DESTINATIONS)(_destination)
        # A unique stem, and a number: an id of its own for every job, at the price of a number.
        stem = unique_token().encode()
        self._fresh_ids = (b"%b%x" % (stem, number) for number in count())

    async def enqueue(
        self,
        target: JobDef[T] | str,
        payload: PayloadOf[T],
        *,
        id: str | None,
        delay: float | None,
        at: datetime | None,
        headers: HeaderInput | None,
        subject: str | None,
    ) -> Enqueued:
        self._check_thread()
        destination = self._destination(_checked_target(target), subject)
        block = destination.labels(not_before(delay, at, _max_delay(target)), headers)
        data = destination.codec.encode(payload)
        return await publish(
            self._connection,
            destination.subject,
            block(next(self._fresh_ids) if id is None else _encoded_id(id)),
            data,
            timeout=self._timeout,
        )

    async def enqueue_many(
        self,
        target: JobDef[T] | str,
        payloads: Iterable[PayloadOf[T]],
        *,
        ids: Sequence[str] | None,
        delay: float | None,
        at: datetime | None,
        headers: HeaderInput | None,
        subject: str | None,
    ) -> list[Enqueued]:
        self._check_thread()
        destination = self._destination(_checked_target(target), subject)
        block = destination.labels(not_before(delay, at, _max_delay(target)), headers)
        # All are encoded before the first is sent: a bad one must not leave half of them enqueued.
        data = [*map(destination.codec.encode, payloads)]
        blocks = map(block, self._ids(ids, len(data)))
        stored, failures = await publish_many(
            self._connection, destination.subject, zip(blocks, data, strict=True), timeout=self._timeout
        )
        if failures:
            raise EnqueueFailed(dict(sorted(failures.items())), len(data))

        return [stored[position] for position in range(len(data))]

    def _check_thread(self) -> None:
        """The confirmation arrives in the event loop of the processor: another one would never learn of it."""
        if get_ident() != self._thread:
            raise UsageError(
                "enqueue was called in another thread than the processor's; call it through the processor's event loop: "
                "in a thread of AnyIO, such as that of a plain handler, with anyio.from_thread.run(p.enqueue, …); "
                "elsewhere with a BlockingPortal, or open a processor in that thread"
            )

    def _ids(self, ids: Sequence[str] | None, wanted: int) -> Iterable[bytes]:
        if ids is None:
            return islice(self._fresh_ids, wanted)

        if len(ids) != wanted:
            raise UsageError(f"{wanted} payloads and {len(ids)} ids; give one id for each, or none")

        return [*map(_encoded_id, ids)]


class _Destination:
    """Where jobs go, and what they are labelled with."""

    def __init__(self, subject: str, stream: str | None, codec: Codec) -> None:
        self.subject = subject
        self.codec = codec
        self._stream = stream

    def labels(self, wait_until: str | None, headers: HeaderInput | None) -> Callable[[bytes], bytes]:
        """Return a function that makes the header block for an id."""
        if wait_until is None and headers is None:
            return self._plain

        theirs = checked_headers(headers)
        self._check_content_type(theirs)
        return self._labels(wait_until, theirs)

    def _check_content_type(self, theirs: dict[str, str | Sequence[str]]) -> None:
        """A worker believes the label. RAW says nothing of the bytes, so there the label may say it."""
        if self.codec is RAW:
            return

        for name, value in theirs.items():
            text = value if isinstance(value, str) else next(iter(value), "")
            if name.lower() == "content-type" and not self._is_ours(text):
                raise UsageError(
                    f"headers: {name} is {text!r}, and the payload is encoded as {self.codec.name}: no worker could decode "
                    "it; leave the header out, or give the definition another codec"
                )

    def _is_ours(self, content_type: str) -> bool:
        """A type that we do not know is the user's affair."""
        said = by_content_type(content_type)
        return said is None or said is (by_content_type(self.codec.content_type) or self.codec)

    @cached_property
    def _plain(self) -> Callable[[bytes], bytes]:
        return self._labels(None, {})

    def _labels(
        self, wait_until: str | None, theirs: dict[str, str | Sequence[str]]
    ) -> Callable[[bytes], bytes]:
        # The headers of many jobs are the same but for the id: the block is built once, around a place for it.
        place = unique_token()
        ours: dict[str, str | Sequence[str]] = {"Nats-Msg-Id": place, "Content-Type": self.codec.content_type}
        if self._stream is not None:
            ours["Nats-Expected-Stream"] = self._stream

        if wait_until is not None:
            ours[NOT_BEFORE] = wait_until

        before, _, after = encode_headers(ours | theirs).partition(place.encode())
        return lambda id: b"%b%b%b" % (before, id, after)


def _destination(target: JobDef[Any] | str, subject: str | None) -> _Destination:
    if isinstance(target, JobDef):
        subject = subject_of(target) if subject is None else subject
        return _Destination(check_publish_subject(subject), target.stream, target.encoder)

    if subject is not None:
        raise UsageError(f"target is the subject {target!r}, and subject {subject!r} was given as well")

    return _Destination(check_publish_subject(target), None, MSGPACK)


def _checked_target(target: Any) -> Any:
    if not isinstance(target, JobDef | str):
        raise UsageError(f"target is {target!r}; a JobDef or a subject is needed")

    return target


def subject_of(defn: JobDef[Any]) -> str:
    """Where the jobs of a definition are published to: its filter, else the first plain subject of its stream."""
    consumer, stream = defn.consumer_config, defn.stream_config
    filters = (consumer.filter_subject, *(consumer.filter_subjects or ())) if consumer else ()
    candidates = [subject for subject in (defn.filter_subject, *filters) if subject]
    candidates = candidates or (stream and stream.subjects) or [defn.stream]
    for subject in candidates:
        if "*" not in subject and ">" not in subject:
            return subject

    raise UsageError(f"{defn} takes jobs on {', '.join(candidates)}; say which subject with subject=…")


def _encoded_id(id: Any) -> bytes:
    if isinstance(id, str) and id and not any(mark in id for mark in "\r\n"):
        try:
            return id.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            # Half a surrogate pair, which no encoding can carry.
            pass

    raise UsageError(f"id is {id!r}; a text of one line is needed")


def checked_headers(headers: Any) -> dict[str, str | Sequence[str]]:
    """Return the headers that a caller has given, or raise `UsageError`."""
    if headers is None:
        return {}

    if not isinstance(headers, Mapping):
        raise UsageError(f"headers is {headers!r}; a mapping of names to texts is needed")

    for name, value in headers.items():
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in (name, *texts)):
            raise UsageError(f"headers: {name!r} is {value!r}; a text, or a list of texts, is needed")

    if "Nats-Msg-Id" in headers:
        raise UsageError("headers: give the Nats-Msg-Id as id=… instead")

    return dict(headers)


def _max_delay(target: JobDef[Any] | str) -> float:
    return target.max_delay if isinstance(target, JobDef) else MAX_DELAY
