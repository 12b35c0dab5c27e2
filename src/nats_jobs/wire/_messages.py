"""A message and its headers, in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from ..errors import BadSubject, ConnectionClosed

__all__ = ("HeaderInput", "Headers", "Msg", "Publisher", "encode_headers", "parse_headers")

HeaderInput: TypeAlias = Mapping[str, str | Sequence[str]] | bytes
"""Names and values; or a block that `encode_headers` made before."""

_VERSION = b"NATS/1.0"
_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_BREAKS = re.compile(r"[\r\n]+")


class Headers(Mapping[str, str]):
    """The headers of a message: read-only, case-preserving, a name may stand more than once.

    `headers[name]` is the first value, `headers.get_all(name)` every one. The status line of the
    server's own replies shows as `Status` and `Description`, as in nats-py.
    """

    __slots__ = ("_items",)

    def __init__(self, items: dict[str, list[str]] | None = None) -> None:
        self._items = items or {}

    def __getitem__(self, name: str) -> str:
        return self._items[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def get_all(self, name: str) -> list[str]:
        """Return every value of `name`, in the order sent; an empty list when there is none."""
        return list(self._items.get(name, ()))

    def __repr__(self) -> str:
        return f"Headers({self._items!r})"


class Publisher(Protocol):
    """What a message needs of its connection in order to be answered."""

    async def publish(
        self, subject: str, data: bytes = b"", reply: str = "", headers: HeaderInput | None = None
    ) -> None: ...


class Msg:
    """One message as it came from the server."""

    __slots__ = ("_block", "_headers", "_publisher", "data", "reply", "sid", "subject")

    def __init__(self, subject: str, sid: int, reply: str, block: bytes, data: bytes) -> None:
        self.subject = subject
        self.sid = sid
        self.reply = reply
        self.data = data
        self._block = block
        self._headers: Headers | None = None
        self._publisher: Publisher | None = None

    @property
    def headers(self) -> Headers:
        """The headers; empty when there are none. Parsed when first asked for."""
        if self._headers is None:
            self._headers = parse_headers(self._block)

        return self._headers

    @property
    def header(self) -> Headers:
        """The name that nats-py uses besides `headers`."""
        return self.headers

    @property
    def has_headers(self) -> bool:
        return bool(self._block)

    def first_header(self, name: bytes) -> str | None:
        """Return the first value of one header without parsing the others; None when there is none of that spelling."""
        if self._headers is not None:
            return self._headers.get(name.decode())

        start = self._block.find(b"\r\n%b:" % name)
        if start < 0:
            return None

        value, _, _ = self._block[start + len(name) + 3 :].partition(b"\r\n")
        return value.strip().decode("utf-8", "surrogateescape")

    @property
    def status(self) -> int | None:
        """The number in the status line of a server's reply, such as 503; None for an ordinary message."""
        block = self._block
        if len(block) < 12 or block[8] != 32 or not block[9:12].isdigit():
            return None

        return int(block[9:12])

    async def respond(self, data: bytes = b"", headers: HeaderInput | None = None) -> None:
        """Publish `data` to the reply subject of this message.

        Raises:
            BadSubject: the message asked for no reply.
        """
        if not self.reply:
            raise BadSubject(self.reply, "the message has no reply subject; its sender expects no answer")

        if self._publisher is None:
            raise ConnectionClosed

        await self._publisher.publish(self.reply, data, headers=headers)

    def __repr__(self) -> str:
        return f"Msg(subject={self.subject!r}, reply={self.reply!r}, headers={dict(self.headers)!r}, data={self.data!r})"


def parse_headers(block: bytes) -> Headers:
    """Read a header block. Never raises: the server forwards whatever a publisher wrote (ADR-4 says what it should be)."""
    items: dict[str, list[str]] = {}
    if not block.startswith(_VERSION):
        return Headers()

    # A value may be in any encoding; surrogates keep what is no UTF-8.
    first, *lines = block.decode("utf-8", "surrogateescape").split("\r\n")
    status = first[len(_VERSION) :].strip()
    if status:
        items["Status"] = [status[:3]]
        if status[3:].strip():
            items["Description"] = [status[3:].strip()]

    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name:
            items.setdefault(name.strip(), []).append(value.strip())

    return Headers(items)


def encode_headers(headers: HeaderInput) -> bytes:
    """Write a header block. Line breaks in a value become a space: they would end the header.

    Raises:
        BadSubject: a name or value has a character that it cannot have.
    """
    if isinstance(headers, bytes):
        return headers

    lines = ["NATS/1.0"]
    for key, values in headers.items():
        # A nats.js.api.Header is a str whose format() is its member name; its str value is what we want.
        name = str.__str__(key)
        if not _KEY.fullmatch(name):
            raise BadSubject(name, "a header name has letters, digits and !#$%&'*+-.^_`|~ only")

        each = (values,) if isinstance(values, str) else values
        lines += [f"{name}: {_LINE_BREAKS.sub(' ', str.__str__(value))}" for value in each]

    try:
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadSubject(
            error.object[:80], "a header has half of a surrogate pair, which cannot be encoded"
        ) from None
