"""The stream of dead letters, and single messages of others, through JetStream's API: one request for one thing.

Asked again while a leader is elected, which takes 5 to 7 seconds (seen on 2.15): repeating is safe for all of them.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import ApiError
from ..jetstream import ErrorCode, JetStreamApi, retrying
from ..wire import Headers, parse_headers
from ._dead_letter import DeadLetter, read_letter
from ._headers import STREAM, stream_config

__all__ = ("API_PATIENCE", "DeadLetterStore", "StoredMessage", "StreamState")

API_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream is like just now."""

    last_sequence: int
    subjects: tuple[str, ...]
    deny_delete: bool


class DeadLetterStore:
    """Reads and empties the stream of dead letters, where there is no letter as long as there is no such stream.

    Reads and removes single messages of other streams, too.
    """

    def __init__(self, api: JetStreamApi) -> None:
        self.api = api

    async def state(self, stream: str = STREAM) -> StreamState | None:
        """Return what this or another stream is like; None when there is none of that name."""
        reply = await self._ask(f"STREAM.INFO.{stream}", {}, none_for=(ErrorCode.STREAM_NOT_FOUND,))
        if reply is None:
            return None

        config = reply["config"]
        return StreamState(
            last_sequence=reply["state"]["last_seq"],
            subjects=tuple(config.get("subjects") or ()),
            deny_delete=config.get("deny_delete", False),
        )

    async def make(self) -> None:
        """Make the stream, which may be there by now."""
        await self._ask(f"STREAM.CREATE.{STREAM}", stream_config(), none_for=(ErrorCode.STREAM_NAME_IN_USE,))

    async def count(self, subject: str) -> int:
        total = 0
        offset = 0
        while True:
            body = {"subjects_filter": subject, "offset": offset}
            reply = await self._ask(f"STREAM.INFO.{STREAM}", body, none_for=(ErrorCode.STREAM_NOT_FOUND,))
            # Given out in pages, of 100,000 subjects.
            page: dict[str, int] = (reply or {}).get("state", {}).get("subjects") or {}
            total += sum(page.values())
            offset += len(page)
            if not page or reply is None or offset >= reply.get("total", 0):
                return total

    async def letter(self, sequence: int) -> DeadLetter | None:
        return _letter(await self.message(STREAM, {"seq": sequence}))

    async def next_letter(self, sequence: int, subject: str) -> DeadLetter | None:
        """Return the first letter on `subject` that has this sequence or a higher one: a gap costs nothing."""
        return _letter(await self.message(STREAM, {"seq": sequence, "next_by_subj": subject}))

    async def message(self, stream: str, which: dict[str, Any]) -> dict[str, Any] | None:
        """Return a message as the API has it; None when it, or the stream, is not there."""
        return await retrying(
            lambda seconds: self.api.get_message(stream, which, timeout=seconds), API_PATIENCE
        )

    async def remove(self, sequence: int, stream: str = STREAM) -> bool:
        """Remove a letter, or a message of another stream; False when it was gone already."""
        try:
            await retrying(
                lambda seconds: self.api.delete_message(stream, sequence, timeout=seconds), API_PATIENCE
            )
        except ApiError:
            # The server has several codes for a message that is not there, and shares one of them with refusals.
            if await self.message(stream, {"seq": sequence}) is not None:
                raise

            return False

        return True

    async def purge(self, subject: str, up_to: int) -> int:
        """Remove every letter on `subject` whose sequence is `up_to` or lower; return how many there were."""
        body = {"filter": subject, "seq": up_to + 1}
        reply = await self._ask(f"STREAM.PURGE.{STREAM}", body, none_for=(ErrorCode.STREAM_NOT_FOUND,))
        return int(reply["purged"]) if reply is not None else 0

    async def _ask(
        self, call: str, body: dict[str, Any], none_for: tuple[ErrorCode, ...] = ()
    ) -> dict[str, Any] | None:
        """Return the answer; None for an error whose code is in `none_for`."""
        try:
            return await retrying(lambda seconds: self.api.request(call, body, timeout=seconds), API_PATIENCE)
        except ApiError as error:
            if error.err_code in none_for:
                return None

            raise


def _letter(message: dict[str, Any] | None) -> DeadLetter | None:
    return None if message is None else read_letter(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
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
    ) -> StoredMessage | None:
        """Read it from its stream; None when it is not there any more, since a late answer has ended it, say."""
        message = await DeadLetterStore(api).message(stream, {"seq": sequence})
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
        return await DeadLetterStore(api).remove(self.sequence, self.stream)
