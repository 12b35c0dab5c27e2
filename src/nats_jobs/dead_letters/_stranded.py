"""A job that lies in its stream and that the server will never deliver again."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime

from ..jetstream import JetStreamApi
from ..wire import Headers, parse_headers
from ._box import Box

__all__ = ("Stranded",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranded:
    """What there is to know of such a job, by the names that a `Delivery` has: it can be given to `park`."""

    stream: str
    consumer: str
    sequence: int
    attempt: int
    """The number of its last delivery."""

    subject: str
    headers: Headers
    data: bytes
    stored_at: datetime

    @property
    def has_headers(self) -> bool:
        return bool(self.headers)

    @classmethod
    async def find(
        cls, api: JetStreamApi, stream: str, consumer: str, sequence: int, attempt: int
    ) -> Stranded | None:
        """Read it from its stream; None when it is not there any more, since a late answer has ended it, say."""
        message = await Box(api).message(stream, {"seq": sequence})
        if message is None:
            return None

        return cls(
            stream=stream,
            consumer=consumer,
            sequence=sequence,
            attempt=attempt,
            subject=message["subject"],
            headers=parse_headers(b64decode(message.get("hdrs", ""))),
            data=b64decode(message.get("data", "")),
            stored_at=datetime.fromisoformat(message["time"]),
        )

    async def remove(self, api: JetStreamApi) -> bool:
        """Remove it from its stream; False when it was gone already."""
        return await Box(api).remove(self.sequence, self.stream)
