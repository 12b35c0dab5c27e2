"""Publishing a job again, with headers of ours as far as the server takes them.

The headers that came with the job are part of it, so they are never left out. Without any of ours the
message is not larger than it was when the server took it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..errors import PayloadTooLarge, PublishRefused
from ..jetstream import Enqueued, ErrorCode, publish
from ..wire import Connection, Headers, encode_headers
from ._stream import Header

__all__ = ("headers_of_job", "one_line", "publish_fitting")

# The headers may be larger than JetStream takes, which is 64 KiB.
_TOO_LARGE = (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.HEADERS_TOO_LARGE)
_OURS = frozenset(value.lower() for name, value in vars(Header).items() if name.isupper())


def headers_of_job(headers: Headers) -> Headers:
    """Return the headers that belong to a job wherever it goes.

    Not those of a dead letter, and none that tell the server what to do: it would do it again.
    """
    return Headers({name: headers.get_all(name) for name in headers if _belongs(name.lower())})


def one_line(text: str, longest: int) -> str:
    """Return `text` as a header value: cut, and of characters that UTF-8 has."""
    return " ".join(text[: 2 * longest].encode("utf-8", "replace").decode().split())[:longest]


async def publish_fitting(
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
