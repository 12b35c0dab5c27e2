"""The server said `-ERR`: who is it about?

Whether the link survives is not decided here: the socket shows it. A text that is not known is reported,
as every other, and nothing else happens.
"""

from __future__ import annotations

import re

from ..errors import PermissionDenied, ServerRefused
from ._interests import Interests
from ._link import Link
from ._requests import Requests

__all__ = ("Complaints",)

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_SUBSCRIPTION = "permissions violation for subscription"
_REPLY = "permissions violation for publish with reply"
_PUBLISH = "permissions violation for publish"
_ABOUT_A_SUB = ("invalid subject", "maximum subscriptions exceeded")
_PASSING = (_SUBSCRIPTION, _PUBLISH, *_ABOUT_A_SUB, "invalid publish subject")


class Complaints:
    """Fails the subscription or the request that a `-ERR` is about."""

    def __init__(self, interests: Interests, requests: Requests) -> None:
        self._interests = interests
        self._requests = requests

    def take(self, link: Link, text: str) -> None:
        lowered = text.lower()
        subject, queue = _subjects(text)
        if lowered.startswith(_SUBSCRIPTION):
            # May come at any time: permissions can be taken away from a subscription that stands.
            for sid in self._interests.matching(subject, queue):
                self._interests.refuse(sid, PermissionDenied(subject, text))
        elif lowered.startswith(_REPLY):
            self._requests.refuse_reply(subject, PermissionDenied(subject, text))
        elif lowered.startswith(_PUBLISH):
            self._requests.refuse(subject, PermissionDenied(subject, text))
            for sid in self._interests.asking(subject):
                self._interests.refuse(sid, PermissionDenied(subject, text))
        elif lowered.startswith(_ABOUT_A_SUB):
            self._interests.refuse(link.subscribing, ServerRefused(str(link.server), text))

        if not lowered.startswith(_PASSING):
            link.last_words = text


def _subjects(text: str) -> tuple[str, str]:
    """Return what stands in the first and second pair of quotes: the subject and, for a subscription, the queue."""
    quoted = [_ESCAPED.sub(r"\1", found) for found in _QUOTED.findall(text)]
    subject, queue, *_ = *quoted, "", ""
    return subject, queue
