"""What the server says on a pull inbox besides jobs: ADR-37's table, and what 2.15 adds to it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from .._untrusted import parse_number
from ..errors import Malformed
from ..wire import Msg

__all__ = ("PullStatus", "StatusKind", "read_status")

_MAX_LIMIT_DIGITS = 9


class StatusKind(enum.Enum):
    """What a status means for the pull requests that are out."""

    HEARTBEAT = "the server is there, nothing else"
    REQUEST_ENDED = "one request ended; ask again when needed"
    ALL_ENDED = "no request is left at the server; ask again"
    RETRY_LATER = "not now; ask again after a while"
    TOO_LARGE = "the consumer limits what one request may ask for"
    CONSUMER_DELETED = "the consumer was deleted"
    UNPULLABLE = "this consumer can never be pulled like this"


@dataclass(frozen=True, slots=True)
class PullStatus:
    """`undelivered` messages of the request were not sent; `limit` belongs to TOO_LARGE."""

    kind: StatusKind
    text: str
    undelivered: int = 0
    limit: int | None = None


_KINDS: dict[tuple[int, str], StatusKind] = {
    (100, ""): StatusKind.HEARTBEAT,
    (404, ""): StatusKind.REQUEST_ENDED,
    (408, ""): StatusKind.REQUEST_ENDED,
    (409, "batch completed"): StatusKind.REQUEST_ENDED,
    (409, "message size exceeds maxbytes"): StatusKind.REQUEST_ENDED,
    (409, "leadership change"): StatusKind.ALL_ENDED,
    (409, "server shutdown"): StatusKind.RETRY_LATER,
    (409, "exceeded maxwaiting"): StatusKind.RETRY_LATER,
    (409, "exceeded maxrequestbatch"): StatusKind.TOO_LARGE,
    (409, "exceeded maxrequest"): StatusKind.UNPULLABLE,
    (409, "consumer deleted"): StatusKind.CONSUMER_DELETED,
    (409, "consumer is push based"): StatusKind.UNPULLABLE,
    (400, ""): StatusKind.UNPULLABLE,
    (423, ""): StatusKind.RETRY_LATER,
    (503, ""): StatusKind.RETRY_LATER,
}


def read_status(message: Msg) -> PullStatus:
    """Tell what a status message means. One that is unknown means: back off and ask again."""
    code = message.status or 0
    text = message.headers.get("Description", "")
    lowered = text.lower()
    kind = next(
        (kind for (known, words), kind in _KINDS.items() if known == code and lowered.startswith(words)),
        StatusKind.RETRY_LATER,
    )
    return PullStatus(kind, f"{code} {text}".strip(), _undelivered(message), _last_number(text))


def _undelivered(message: Msg) -> int:
    try:
        return parse_number(message.headers.get("Nats-Pending-Messages", "0"), "Nats-Pending-Messages")
    except Malformed:
        return 0


def _last_number(text: str) -> int | None:
    numbers = re.findall(rf"\b[0-9]{{1,{_MAX_LIMIT_DIGITS}}}\b", text)
    return int(numbers[-1]) if numbers else None
