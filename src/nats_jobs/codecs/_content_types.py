"""Which codec a `Content-Type` header asks for."""

from __future__ import annotations

from ._base import Codec
from ._json import JSON
from ._msgpack import MSGPACK
from ._plain import RAW, TEXT

__all__ = ("by_content_type",)

_TYPES: dict[str, Codec] = {
    "application/msgpack": MSGPACK,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
    "application/json": JSON,
    "application/octet-stream": RAW,
}

# The spellings that nearly every message has: this is asked for each job.
_EXACT: dict[str, Codec] = {
    **_TYPES,
    "application/json; charset=utf-8": JSON,
    "text/plain": TEXT,
    "text/plain; charset=utf-8": TEXT,
}

_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


def by_content_type(content_type: str | None) -> Codec | None:
    """Return the codec for a `Content-Type`, or None if there is none that we know.

    Case and parameters do not matter, nor what comes before `+json` and `+msgpack`. Any `text/…` is TEXT,
    unless its charset says that it is something else than UTF-8 or ASCII: then None, as we would misread it.
    """
    if content_type is None:
        return None

    return _EXACT.get(content_type) or _work_out(content_type)


def _work_out(content_type: str) -> Codec | None:
    media_type, _, parameters = content_type.lower().partition(";")
    media_type = media_type.strip()
    main, _, sub = media_type.partition("/")
    if not main or not sub:
        return None

    if sub.endswith("+json"):
        return JSON

    if sub.endswith("+msgpack"):
        return MSGPACK

    if main == "text":
        return TEXT if _is_utf8(parameters) else None

    return _TYPES.get(media_type)


def _is_utf8(parameters: str) -> bool:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            return value.strip().strip('"') in _UTF8

    return True
