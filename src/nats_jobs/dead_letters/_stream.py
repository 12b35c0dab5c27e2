"""The stream, its subjects, and the names of the headers that say why."""

from __future__ import annotations

__all__ = ("REASONS", "STREAM", "SUBJECTS", "Header", "stream_config", "subject_of")

STREAM = "DEAD_LETTERS"
_PREFIX = "dead_letters"
SUBJECTS = f"{_PREFIX}.>"

REASONS = ("exhausted", "rejected", "undecodable", "crash-loop", "interrupted")
"""Why a job is parked: attempts used up, `Reject` raised, payload unreadable, workers died of it again and again
(or its last delivery was lost), or cut short on the last delivery that the consumer's `max_deliver` allows."""

# Bytes. A subject has to fit into one control line of the protocol, of 4096 bytes at most servers, with more.
_LONGEST_SUBJECT = 2000


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
    while len(place.encode("utf-8", "surrogateescape")) > _LONGEST_SUBJECT:
        place = place[: len(place) // 2].rstrip(".")

    return place
