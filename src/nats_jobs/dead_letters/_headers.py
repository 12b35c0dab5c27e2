"""Dead letters on the wire: their stream, their subjects, the headers that say why, and publishing with those.

The headers that came with a job are part of it, so they are never left out. Without any of ours a message is
not larger than it was when the server took it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..errors import PayloadTooLarge, PublishRefused
from ..jetstream import Enqueued, ErrorCode, publish
from ..wire import Connection, Headers, encode_headers

__all__ = (
    "REASONS",
    "STREAM",
    "SUBJECTS",
    "Header",
    "headers_of_job",
    "one_line",
    "publish_trimmed",
    "stream_config",
    "subject_of",
)

STREAM = "DEAD_LETTERS"
_PREFIX = "dead_letters"
SUBJECTS = f"{_PREFIX}.>"

REASONS = ("exhausted", "expired", "rejected", "undecodable", "crash-loop", "interrupted")
"""Why a job is parked: attempts used up, failed past the `max_age` of its stream, `Reject` raised, payload unreadable,
workers died of it again and again (or its last delivery was lost), or cut short on the last delivery that the
consumer's `max_deliver` allows."""

# Bytes. A subject has to fit into one control line of the protocol, of 4096 bytes at most servers, with more.
_MAX_SUBJECT = 2000


class Header:
    """The headers of a dead letter, besides those that came with the job."""

    REASON = "Nats-Jobs-Reason"
    """One of `REASONS`."""

    ERROR = "Nats-Jobs-Error"
    ERROR_TYPE = "Nats-Jobs-Error-Type"
    ATTEMPTS = "Nats-Jobs-Attempts"
    STREAM = "Nats-Jobs-Stream"
    CONSUMER = "Nats-Jobs-Consumer"
    SEQUENCE = "Nats-Jobs-Sequence"
    SUBJECT = "Nats-Jobs-Subject"
    ENQUEUED_AT = "Nats-Jobs-Enqueued-At"
    PARKED_AT = "Nats-Jobs-Parked-At"
    ORIGINAL_ID = "Nats-Jobs-Original-Id"
    """The id it was enqueued with first. A redriven job has this one, too."""

    REDRIVEN = "Nats-Jobs-Redriven"
    """How often it was redriven. A redriven job has this one, too."""

    HISTORY = "Nats-Jobs-History"
    """Why it was parked in earlier rounds: JSON, the oldest first. A redriven job has this one, too."""


# The headers may be larger than JetStream takes, which is 64 KiB.
_TOO_LARGE = (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.HEADERS_TOO_LARGE)
_OURS = frozenset(value.lower() for name, value in vars(Header).items() if name.isupper())


def stream_config(replicas: int = 1) -> dict[str, object]:
    """Return the configuration that the stream is made with."""
    return {
        "name": STREAM,
        "subjects": [SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": replicas,
        "max_age": 0,
    }


def subject_of(stream: str, subject: str = ">") -> str:
    """Return where the dead letters of a job's stream and subject are; without a subject, of the whole stream.

    A subject too long for that is cut; the header has it in full.
    """
    place = f"{_PREFIX}.{stream}.{subject}"
    while len(place.encode("utf-8", "surrogateescape")) > _MAX_SUBJECT:
        place = place[: len(place) // 2].rstrip(".")

    return place


def headers_of_job(headers: Headers) -> Headers:
    """Return the headers that belong to a job wherever it goes.

    Not those of a dead letter, and none that tell the server what to do: it would do it again.
    """
    return Headers({name: headers.get_all(name) for name in headers if _belongs(name.lower())})


def one_line(text: str, longest: int) -> str:
    """Return `text` as a header value: cut, and of characters that UTF-8 has."""
    return " ".join(text[: 2 * longest].encode("utf-8", "replace").decode().split())[:longest]


async def publish_trimmed(
    connection: Connection,
    subject: str,
    data: bytes,
    theirs: Headers,
    *ours: Mapping[str, str],
    timeout: float,
) -> Enqueued:
    """Publish with the first of `ours` that is not too much. Raises as `publish` does."""
    *larger, smallest = (_block(some, theirs) for some in (*ours, {}))
    for block in larger:
        try:
            return await publish(connection, subject, block, data, timeout=timeout)
        except (PayloadTooLarge, PublishRefused) as error:
            if isinstance(error, PublishRefused) and error.err_code not in _TOO_LARGE:
                raise

    return await publish(connection, subject, smallest, data, timeout=timeout)


def _belongs(name: str) -> bool:
    return name not in _OURS and (not name.startswith("nats-") or name.startswith("nats-jobs-"))


def _block(ours: Mapping[str, str], theirs: Headers) -> bytes:
    if not ours and not theirs:
        return b""

    # Not encoded as a user's headers are: a client of any kind may have sent names that we would refuse.
    lines = "".join(_lines(theirs)).encode("utf-8", "surrogateescape")
    return encode_headers(ours).removesuffix(b"\r\n") + lines + b"\r\n"


def _lines(headers: Headers) -> Iterator[str]:
    for name in headers:
        values: Sequence[str] = headers.get_all(name)
        for value in values:
            yield f"{name}: {value}\r\n"
