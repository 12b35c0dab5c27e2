"""What a `-ERR` of the server is about. Pure: the session acts on it.

Whether the connection survives is not decided here: the socket shows it. A text that is not known is
reported, as every other, and nothing else happens.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

__all__ = ("Concern", "ServerError", "parse_server_error", "readable")

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
# A subject has at most 4,000 bytes here; looking for quotes in much more than that takes seconds.
_MAX_CHARS = 4200
_MAX_SHOWN = 1000


class Concern(Enum):
    """What the server refused."""

    SUBSCRIPTION = auto()
    REPLY_SUBJECT = auto()
    PUBLISH = auto()
    LAST_SUBSCRIPTION = auto()
    PUBLISH_SUBJECT = auto()
    OTHER = auto()


_STARTS = (
    ("permissions violation for subscription", Concern.SUBSCRIPTION),
    ("permissions violation for publish with reply", Concern.REPLY_SUBJECT),
    ("permissions violation for publish", Concern.PUBLISH),
    ("invalid subject", Concern.LAST_SUBSCRIPTION),
    ("maximum subscriptions exceeded", Concern.LAST_SUBSCRIPTION),
    ("invalid publish subject", Concern.PUBLISH_SUBJECT),
)


class ServerError(NamedTuple):
    """`subject` and `queue` are empty when the text names none."""

    concern: Concern
    subject: str
    queue: str


def parse_server_error(text: str) -> ServerError:
    """Return what `text` is about. Never raises."""
    lowered = text[:100].lower()
    concern = next((concern for start, concern in _STARTS if lowered.startswith(start)), Concern.OTHER)
    quoted = [_ESCAPED.sub(r"\1", found) for found in _QUOTED.findall(text[:_MAX_CHARS])]
    subject, queue, *_ = *quoted, "", ""
    return ServerError(concern, subject, queue)


def readable(text: str) -> str:
    """Return what a server said as it may stand in an error or a log: on one line, and not without end."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "…"
