"""Where the jobs of a definition, or of a subject, go, and how they are labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ..codecs import MSGPACK, RAW, Codec, by_content_type
from ..errors import UsageError
from ..wire import HeaderInput, check_publish_subject, encode_headers
from ._definition import JobDef
from ._route import Route

__all__ = ("Destination", "checked_headers", "destination_of", "subject_of")


class Destination:
    """Where jobs go, and what they are labelled with."""

    def __init__(self, subject: str, stream: str | None, codec: Codec) -> None:
        self.subject = subject
        self.codec = codec
        self.stream = stream

    def checked(self, headers: HeaderInput | None) -> dict[str, str | Sequence[str]]:
        """Return the headers that a caller has given.

        Raises:
            UsageError: bad ones.
        """
        if headers is None:
            return {}

        theirs = checked_headers(headers)
        self._check_content_type(theirs)
        # Also names and values that cannot be encoded are to be found before anything is sent.
        encode_headers(theirs)
        return theirs

    def route(self, theirs: dict[str, str | Sequence[str]]) -> Route:
        """Return how jobs with these headers are sent at once."""
        return Route(self.subject, self.labels(theirs)) if theirs else self._plain

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
    def _plain(self) -> Route:
        return Route(self.subject, self.labels({}))

    def labels(self, *others: Mapping[str, str | Sequence[str]]) -> dict[str, str | Sequence[str]]:
        """Return all headers but the id; what comes later wins."""
        ours: dict[str, str | Sequence[str]] = {"Content-Type": self.codec.content_type}
        if self.stream is not None:
            ours["Nats-Expected-Stream"] = self.stream

        for other in others:
            ours |= other

        return ours


def destination_of(target: JobDef[Any] | str, subject: str | None) -> Destination:
    if isinstance(target, JobDef):
        subject = subject_of(target) if subject is None else subject
        return Destination(check_publish_subject(subject), target.stream, target.encoder)

    if subject is not None:
        raise UsageError(f"target is the subject {target!r}, and subject {subject!r} was given as well")

    return Destination(check_publish_subject(target), None, MSGPACK)


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
