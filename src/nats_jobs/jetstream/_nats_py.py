"""nats-py's JetStream layer on our connection.

nats-py's manager, publish and key-value calls only ever await `nc.request(...)`, so they run on both
backends given an object with the few attributes below. What makes asyncio objects
(`subscribe`, `publish_async`, key-value watch) does not, and is refused with a sentence.
"""

from __future__ import annotations

from typing import Any, cast

from nats.aio.client import Client, ServerVersion
from nats.js.client import JetStreamContext
from nats.nuid import NUID

from ..errors import UsageError
from ..wire import Connection, HeaderInput, Msg
from ._api import api_prefix

__all__ = ("NatsPyAdapter", "jetstream_context")


def jetstream_context(
    connection: Connection,
    *,
    timeout: float = 5.0,
    domain: str | None = None,
    js_prefix: str | None = None,
) -> JetStreamContext:
    """Return nats-py's JetStream context (manager, publish, key-value) on `connection`.

    Args:
        timeout: seconds for one API request.
        domain: the JetStream domain, when it is not the server's own.
        js_prefix: the prefix under which the account imports the JetStream API of another account.

    Raises:
        UsageError: both are given, or one of them cannot be part of a subject.
    """
    prefix = api_prefix(domain, js_prefix)
    return JetStreamContext(cast("Client", NatsPyAdapter(connection)), timeout=timeout, prefix=prefix)


class NatsPyAdapter:
    """What `nats.js` needs of a connection: the one place that knows nats-py's private names."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._nuid = NUID()
        self._inbox_prefix = bytearray(connection.new_inbox().rpartition(".")[0].encode())

    @property
    def connected_server_version(self) -> ServerVersion:
        return ServerVersion(str(self._connection.server_info.get("version", "0.0.0")))

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        return await self._connection.request(subject, payload, timeout=timeout, headers=_texts(headers))

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, Any] | None = None
    ) -> None:
        await self._connection.publish(subject, payload, reply, _texts(headers))

    async def subscribe(self, subject: str, *args: Any, **kwargs: Any) -> Any:
        raise UsageError(
            f"subscribing to {subject!r} through nats-py needs asyncio's own machinery; use a job definition, "
            "or `connection.subscribe(...)` of nats_jobs.wire"
        )

    def new_inbox(self) -> str:
        return self._connection.new_inbox()


def _texts(headers: dict[str, Any] | None) -> HeaderInput | None:
    """nats-py lets numbers through as header values."""
    if not headers:
        return None

    return {name: value if isinstance(value, str) else str(value) for name, value in headers.items()}
