"""Records in a stream, each on a subject of its own: written by compare-and-set on the sequence of the last one."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from .._untrusted import field_of
from ..errors import Malformed, PublishRefused
from ..jetstream import Enqueued, ErrorCode, JetStreamApi, parse_pub_ack
from ._ledger import RecordChanged, Revision

__all__ = ("RecordStore", "Slot", "is_conflict")

_WHAT = "the record of a schedule"
_CONFLICTS = (ErrorCode.WRONG_LAST_SEQUENCE, ErrorCode.LAST_SEQUENCE_CONFLICT)
_TIMEOUT = 5.0


class Slot:
    """What is stored on one subject."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.revision: Revision = field_of(message, "seq", int, _WHAT)
        self.stored_at = field_of(message, "time", str, _WHAT)
        try:
            self.data = b64decode(field_of(message, "data", str, _WHAT, ""), validate=True)
        except ValueError:
            raise Malformed(_WHAT, "not base64") from None


class RecordStore:
    """The last message on each subject below `prefix` in `stream`.

    Args:
        headers: what every write has, besides the expected sequence.
    """

    def __init__(
        self, api: JetStreamApi, stream: str, prefix: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.api = api
        self.stream = stream
        self._prefix = prefix
        self._headers = {"Nats-Expected-Stream": stream, **(headers or {})}

    def subject(self, id: str) -> str:
        return f"{self._prefix}.{id}"

    def headers(self, expected: Revision) -> dict[str, str]:
        """Return the headers of a write in place of the revision `expected`."""
        return {**self._headers, "Nats-Expected-Last-Subject-Sequence": str(expected)}

    async def read(self, id: str) -> Slot | None:
        message = await self.api.get_message(self.stream, {"last_by_subj": self.subject(id)})
        return None if message is None else Slot(message)

    async def write(self, id: str, data: bytes, expected: Revision) -> Revision:
        """Write in place of the revision `expected`.

        Raises:
            RecordChanged: that is not the last one.
        """
        ack = await publish_once(self.api, self.subject(id), self.headers(expected), data)
        return ack.sequence

    async def ids(self) -> list[str]:
        """Return what has a record, in alphabetical order."""
        body = {"subjects_filter": f"{self._prefix}.*"}
        call = f"STREAM.INFO.{self.stream}"
        info = await self.api.request(call, body)
        subjects = field_of(field_of(info, "state", dict, call), "subjects", dict, call, {})
        return sorted(str(subject).removeprefix(f"{self._prefix}.") for subject in subjects)


async def publish_once(api: JetStreamApi, subject: str, headers: Mapping[str, str], data: bytes) -> Enqueued:
    """Publish a message with one try: a second one would meet the sequence of the first, and not know whose it is.

    Raises:
        RecordChanged: an expected sequence is not the last one.
    """
    reply = await api.connection.request(subject, data, timeout=_TIMEOUT, headers=headers)
    try:
        return parse_pub_ack(subject, reply)
    except PublishRefused as error:
        if is_conflict(error):
            raise RecordChanged from error

        raise


def is_conflict(error: PublishRefused) -> bool:
    """Whether an expected sequence was not the last one. The second code is what a replicated stream says."""
    return error.err_code in _CONFLICTS
