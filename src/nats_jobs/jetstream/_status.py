"""What the server says on a pull inbox besides jobs: ADR-37's table, and what 2.15 adds to it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from ..wire import Msg

__all__ = ("PullStatus", "StatusKind", "read_status")


class StatusKind(enum.Enum):
    """What a status means for the pull requests that are out."""

    ALIVE = "the server is there, nothing else"
    ENDED = "one request ended; ask again when needed"
    ALL_ENDED = "no request is left at the server; ask again"
    BACK_OFF = "not now; ask again after a while"
    TOO_LARGE = "the consumer limits what one request may ask for"
    GONE = "the consumer was deleted"
    REFUSED = "this consumer can never be pulled like this"


@dataclass(frozen=True, slots=True)
class PullStatus:
    """`undelivered` messages of the request were not sent; `limit` belongs to TOO_LARGE."""

    kind: StatusKind
    text: str
    undelivered: int = 0
    limit: int | None = None


_KINDS: dict[tuple[int, str], StatusKind] = {
    (100, ""): StatusKind.ALIVE,
    (404, ""): StatusKind.ENDED,
    (408, ""): StatusKind.ENDED,
    (409, "batch completed"): StatusKind.ENDED,
    (409, "message size exceeds maxbytes"): StatusKind.ENDED,
    (409, "leadership change"): StatusKind.ALL_ENDED,
    (409, "server shutdown"): StatusKind.BACK_OFF,
    (409, "exceeded maxwaiting"): StatusKind.BACK_OFF,
    (409, "exceeded maxrequestbatch"): StatusKind.TOO_LARGE,
    (409, "exceeded maxrequest"): StatusKind.REFUSED,
    (409, "consumer deleted"): StatusKind.GONE,
    (409, "consumer is push based"): StatusKind.REFUSED,
    (400, ""): StatusKind.REFUSED,
    (423, ""): StatusKind.BACK_OFF,
    (503, ""): StatusKind.BACK_OFF,
}


def read_status(message: Msg) -> PullStatus:
    """Tell what a status message means. One that is unknown means: back off and ask again."""
    code = message.status or 0
    text = message.headers.get("Description", "")
    lowered = text.lower()
    kind = next(
        (kind for (known, words), kind in _KINDS.items() if known == code and lowered.startswith(words)),
        StatusKind.BACK_OFF,
    )
    return PullStatus(kind, f"{code} {text}".strip(), _undelivered(message), _last_number(text))


def _undelivered(message: Msg) -> int:
    value = message.headers.get("Nats-Pending-Messages", "0")
    return int(value) if value.isdecimal() else 0


def _last_number(text: str) -> int | None:
    numbers = re.findall(r"\d+", text)
    return int(numbers[-1]) if numbers else None
