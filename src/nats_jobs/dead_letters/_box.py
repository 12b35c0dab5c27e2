"""The stream of dead letters through JetStream's API: one request for one thing.

Asked again while a leader is elected, which takes 5 to 7 seconds (seen on 2.15): repeating is safe for all of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

import anyio

from ..backoff import jittered
from ..errors import ConnectionLost, NoResponders, RequestTimeout, ServerRefused
from ..wire import Connection
from ._letter import DeadLetter, read_letter
from ._stream import STREAM, stream_config

__all__ = ("API_PATIENCE", "Box", "HasConnection", "State")

API_PATIENCE = 10.0
_ONE_TRY = 5.0

_UNAVAILABLE = 10008
_NO_MESSAGE = 10037
_NO_STREAM = 10059


class HasConnection(Protocol):
    """A `JobProcessor`, or anything else on a connection."""

    @property
    def connection(self) -> Connection: ...


@dataclass(frozen=True, slots=True)
class State:
    """What a stream is like just now."""

    last_sequence: int
    subjects: tuple[str, ...]
    deny_delete: bool


class Box:
    """Reads and empties the stream of dead letters, where there is no letter as long as there is no such stream.

    Reads and removes single messages of other streams, too.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def state(self, stream: str = STREAM) -> State | None:
        """Return what this or another stream is like; None when there is none of that name."""
        reply = await self._ask(f"STREAM.INFO.{stream}", {}, none_for=(_NO_STREAM,))
        if reply is None:
            return None

        config = reply["config"]
        return State(
            last_sequence=reply["state"]["last_seq"],
            subjects=tuple(config.get("subjects") or ()),
            deny_delete=config.get("deny_delete", False),
        )

    async def make(self) -> None:
        """Make the stream, which may be there by now."""
        await self._ask(f"STREAM.CREATE.{STREAM}", stream_config(), none_for=(10058,))

    async def count(self, subject: str) -> int:
        total = 0
        offset = 0
        while True:
            body = {"subjects_filter": subject, "offset": offset}
            reply = await self._ask(f"STREAM.INFO.{STREAM}", body, none_for=(_NO_STREAM,))
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
        reply = await self._ask(f"STREAM.MSG.GET.{stream}", which, none_for=(_NO_MESSAGE, _NO_STREAM))
        return None if reply is None else reply["message"]

    async def remove(self, sequence: int, stream: str = STREAM) -> bool:
        """Remove a letter, or a message of another stream; False when it was gone already."""
        body = {"seq": sequence, "no_erase": True}
        try:
            await self._ask(f"STREAM.MSG.DELETE.{stream}", body)
        except ServerRefused:
            # The server has several codes for a message that is not there, and shares one of them with refusals.
            if await self.message(stream, {"seq": sequence}) is not None:
                raise

            return False

        return True

    async def purge(self, subject: str, up_to: int) -> int:
        """Remove every letter on `subject` whose sequence is `up_to` or lower; return how many there were."""
        body = {"filter": subject, "seq": up_to + 1}
        reply = await self._ask(f"STREAM.PURGE.{STREAM}", body, none_for=(_NO_STREAM,))
        return int(reply["purged"]) if reply is not None else 0

    async def _ask(
        self, call: str, body: dict[str, Any], none_for: tuple[int, ...] = ()
    ) -> dict[str, Any] | None:
        """Return the answer; None for an error whose code is in `none_for`."""
        deadline = anyio.current_time() + API_PATIENCE
        tries = 0
        while True:
            try:
                reply = await self._ask_once(call, body, deadline - anyio.current_time())
                code = reply.get("error", {}).get("err_code")
                if code != _UNAVAILABLE:
                    break
            except (NoResponders, ConnectionLost, RequestTimeout):
                if anyio.current_time() >= deadline - 1:
                    raise

            await anyio.sleep(jittered(tries, first=0.05, most=1.0))
            tries += 1

        if code in none_for:
            return None

        return self._unless_refused(call, reply)

    async def _ask_once(self, call: str, body: dict[str, Any], left: float) -> dict[str, Any]:
        reply = await self.connection.request(
            f"$JS.API.{call}", json.dumps(body).encode(), timeout=max(0.1, min(_ONE_TRY, left))
        )
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    def _unless_refused(self, call: str, reply: dict[str, Any]) -> dict[str, Any]:
        error = reply.get("error")
        if error is None:
            return reply

        server = str(self.connection.server_info.get("server_name", "the server"))
        raise ServerRefused(server, f"{call}: {error.get('description')} ({error.get('err_code')})")


def _letter(message: dict[str, Any] | None) -> DeadLetter | None:
    return None if message is None else read_letter(message)
