"""Subject rules: what may be published to, what may be subscribed to, and inboxes of our own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache

from nats.nuid import NUID

from ..errors import BadSubject
from ._commands import message_line
from ._table import Table

__all__ = (
    "check_line",
    "check_publish_subject",
    "check_queue",
    "check_reply",
    "check_subscribe_subject",
    "publishable",
    "subject_matches",
    "unique_token",
)

_WHITESPACE = re.compile(r"[\s\x00]")
_nuid = NUID()
if hasattr(os, "register_at_fork"):
    # A forked process would go on as its siblings do, and those with the same inbox get each other's messages.
    os.register_at_fork(after_in_child=_nuid.randomize_prefix)

# The server closes the connection on a control line above 4096 bytes (its max_control_line); numbers take the rest.
_MAX_TEXT = 4000


def unique_token() -> str:
    """Return 22 characters that no other token has, of this process or another."""
    return _nuid.next().decode()


@lru_cache(maxsize=1024)
def check_publish_subject(subject: str) -> str:
    """Return `subject` when a message can be published to it.

    The server drops a message to `a..b` without a word, takes `a.*` literally, and closes the
    connection on a blank (seen on 2.15), so all of them are refused here.

    Raises:
        BadSubject: empty, an empty token, a wildcard or a blank.
    """
    tokens = _tokens(subject)
    if "*" in tokens or ">" in tokens:
        raise BadSubject(subject, "a message cannot be published to a wildcard")

    return subject


def _line(subject: str) -> bytes:
    return message_line(check_publish_subject(subject))


publishable: Mapping[str, bytes] = Table(_line)
"""The line of a message to a subject. Looking one up raises as `check_publish_subject` does."""


@lru_cache(maxsize=1024)
def check_subscribe_subject(subject: str) -> str:
    """Return `subject` when it can be subscribed to; `*` stands for a token, `>` at the end for the rest.

    Raises:
        BadSubject: empty, an empty token, a blank, or `>` before the end.
    """
    if ">" in _tokens(subject)[:-1]:
        raise BadSubject(subject, "'>' can only be the last token")

    return subject


def check_queue(queue: str) -> str:
    """Return `queue` when it can name a queue group; empty means none.

    Raises:
        BadSubject: it contains a blank.
    """
    if _WHITESPACE.search(queue):
        raise BadSubject(queue, "a queue name cannot contain blanks")

    _check_text(queue)
    return queue


def check_reply(subject: str, reply: str) -> None:
    """Refuse what cannot be the reply subject of a message to `subject`; it may be empty.

    Raises:
        BadSubject: as `check_publish_subject`, or both together are too long for a line.
    """
    if reply:
        check_publish_subject(reply)
        check_line(subject, reply)


def check_line(subject: str, companion: str) -> None:
    """Refuse a subject that is too long together with what stands in the same line: a reply subject or a queue.

    Raises:
        BadSubject: more than 4000 bytes.
    """
    if len(subject) + len(companion) > _MAX_TEXT // 4:
        _check_text(subject + companion)


def subject_matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to `pattern` gets what is published to `subject`."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">" and len(given) >= len(wanted):
        wanted = wanted[:-1]
        given = given[: len(wanted)]

    return len(wanted) == len(given) and all(
        token in ("*", actual) for token, actual in zip(wanted, given, strict=True)
    )


def _tokens(subject: str) -> list[str]:
    if _WHITESPACE.search(subject):
        raise BadSubject(subject, "a subject cannot contain blanks")

    tokens = subject.split(".")
    if not all(tokens):
        raise BadSubject(subject, "a subject cannot be empty, or have an empty token")

    _check_text(subject)
    return tokens


def _check_text(text: str) -> None:
    try:
        size = len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise BadSubject(text, "it has half of a surrogate pair, which cannot be encoded") from None

    if size > _MAX_TEXT:
        raise BadSubject(
            text[:80] + "…",
            f"it has {size} bytes, {_MAX_TEXT} are the limit; the server would close the connection",
        )
