"""JetStream's own API: one request for one thing, in the server's JSON.

An update replaces the whole configuration, and nats-py's dataclasses do not know every field: going
through them would silently reset the rest. So what exists is read, changed and written back as it came.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .._untrusted import field_of, parse_json
from ..errors import ApiError, BadSubject, UsageError
from ..wire import Connection, Msg, check_publish_subject
from ._error_codes import ErrorCode
from ._retrying import TRY_TIMEOUT

__all__ = ("ApiPrefix", "Info", "JetStreamApi", "api_prefix")

ApiPrefix = str

_DEFAULT_PREFIX = "$JS.API"
# A message may have 64 MiB, and base64 makes 4 bytes of 3.
_MAX_REPLY_BYTES = 96 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Info:
    """A stream or a consumer as the server has it now."""

    config: dict[str, Any]
    created: str
    """When it was made: another one of the same name has another."""

    state: dict[str, Any]
    """Of a stream: `messages`, `last_seq`…; empty for a consumer."""

    fields: dict[str, Any]
    """All that the server said."""


def api_prefix(domain: str | None = None, js_prefix: str | None = None) -> ApiPrefix:
    """Return what the subjects of the API begin with, without a dot at the end.

    Args:
        domain: the JetStream domain, when it is not that of the server we are connected to.
        js_prefix: the prefix under which the account imports the API of another one.

    Raises:
        UsageError: both are given, or one of them cannot be part of a subject.
    """
    if domain is not None and js_prefix is not None:
        raise UsageError(
            "both domain and js_prefix were given; give one of them: a domain stands for a prefix"
        )

    if domain is not None and "." in str(domain):
        raise UsageError(f"domain is {domain!r}; the name of a JetStream domain is needed")

    prefix = js_prefix if domain is None else f"$JS.{domain}.API"
    if prefix is None:
        return _DEFAULT_PREFIX

    try:
        return check_publish_subject(prefix.removesuffix("."))
    except (BadSubject, AttributeError):
        name = "js_prefix" if domain is None else "domain"
        raise UsageError(
            f"{name} is {(js_prefix or domain)!r}, which cannot be the beginning of a subject"
        ) from None


class JetStreamApi:
    """Streams, consumers and single messages, through the API of one JetStream.

    Every method makes one request and raises:
        ApiError: JetStream refuses; `err_code` says why.
        NoResponders: there is no JetStream, or it has no leader.
        RequestTimeout, ConnectionLost, PermissionDenied, Malformed.

    Wrap calls in `retrying` to sit out an election.

    Args:
        prefix: what `api_prefix` returned.
        timeout: seconds for one request.
    """

    def __init__(
        self, connection: Connection, *, prefix: ApiPrefix = _DEFAULT_PREFIX, timeout: float = TRY_TIMEOUT
    ) -> None:
        self.connection = connection
        self.prefix = prefix
        self._timeout = timeout

    @property
    def is_local(self) -> bool:
        """Whether it is the JetStream of the server we are connected to, whose INFO says whether it is on."""
        return self.prefix == _DEFAULT_PREFIX

    async def level(self) -> int:
        """Return the level of JetStream's API, which tells what it can do; 0 below nats-server 2.11.

        The server that we are connected to tells its own. Others of a cluster may be older, so what was asked for has
        to be looked for in what comes back: older ones drop what they do not know.
        """
        if self.is_local:
            return field_of(self.connection.server_info, "api_lvl", int, "INFO", 0)

        api = field_of(await self.request("INFO"), "api", dict, "the answer to INFO", {})
        return field_of(api, "level", int, "the answer to INFO", 0)

    def subject(self, call: str) -> str:
        """Return the subject of a call, such as `STREAM.INFO.ORDERS`."""
        return f"{self.prefix}.{call}"

    async def request(
        self, call: str, body: dict[str, Any] | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Make one request and return its answer.

        Args:
            call: what comes after the prefix, such as `STREAM.INFO.ORDERS`.
            timeout: seconds; default: those of this object.
        """
        data = b"" if body is None else json.dumps(body).encode()
        reply = await self.connection.request(self.subject(call), data, timeout=timeout or self._timeout)
        return _answer(call, reply)

    async def stream(self, name: str) -> Info:
        return await self._info(f"STREAM.INFO.{name}")

    async def create_stream(self, config: dict[str, Any]) -> Info:
        """Create; `STREAM_NAME_IN_USE` when it exists with another configuration."""
        return await self._info(f"STREAM.CREATE.{config['name']}", config)

    async def update_stream(self, config: dict[str, Any]) -> Info:
        return await self._info(f"STREAM.UPDATE.{config['name']}", config)

    async def consumer(self, stream: str, name: str) -> Info:
        return await self._info(f"CONSUMER.INFO.{stream}.{name}")

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """Return the configurations of all consumers of a stream."""
        call = f"CONSUMER.LIST.{stream}"
        found: list[dict[str, Any]] = []
        while True:
            page = await self.request(call, {"offset": len(found)})
            entries = field_of(page, "consumers", list, call, [])
            found += [field_of(entry, "config", dict, call) for entry in entries]
            if not entries or len(found) >= field_of(page, "total", int, call, 0):
                return found

    async def create_consumer(self, stream: str, config: dict[str, Any]) -> Info:
        """Create; `CONSUMER_EXISTS` when it exists with another configuration (nats-server 2.10 and newer)."""
        return await self._put_consumer(stream, config, "create")

    async def update_consumer(self, stream: str, config: dict[str, Any]) -> Info:
        return await self._put_consumer(stream, config, "update")

    async def get_message(
        self, stream: str, which: dict[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any] | None:
        """Return a message as the API has it (`data` and `hdrs` in base64); None when it, or the stream, is not there.

        Args:
            which: `{"seq": 7}`, `{"last_by_subj": "a"}`, or `{"seq": 7, "next_by_subj": "a"}`: the first on
                that subject that has this sequence or a higher one.
        """
        call = f"STREAM.MSG.GET.{stream}"
        try:
            reply = await self.request(call, which, timeout=timeout)
        except ApiError as error:
            if error.err_code in (ErrorCode.MESSAGE_NOT_FOUND, ErrorCode.STREAM_NOT_FOUND):
                return None

            raise

        return field_of(reply, "message", dict, call)

    async def delete_message(self, stream: str, sequence: int, *, timeout: float | None = None) -> None:
        """Remove a message without overwriting it. `ApiError` when it is not there, with one of several codes."""
        body = {"seq": sequence, "no_erase": True}
        await self.request(f"STREAM.MSG.DELETE.{stream}", body, timeout=timeout)

    async def purge(self, stream: str, *, timeout: float | None = None, **which: Any) -> int:
        """Remove messages and return how many there were.

        Args:
            which: `filter` (a subject), `seq` (all below it), `keep` (leave as many).
        """
        call = f"STREAM.PURGE.{stream}"
        return field_of(await self.request(call, which, timeout=timeout), "purged", int, call)

    async def _put_consumer(self, stream: str, config: dict[str, Any], action: str) -> Info:
        body = {"stream_name": stream, "config": config, "action": action}
        return await self._info(f"CONSUMER.CREATE.{stream}.{config['durable_name']}", body)

    async def _info(self, call: str, body: dict[str, Any] | None = None) -> Info:
        reply = await self.request(call, body)
        return Info(
            config=field_of(reply, "config", dict, call),
            created=field_of(reply, "created", str, call, ""),
            state=field_of(reply, "state", dict, call, {}),
            fields=reply,
        )


def _answer(call: str, reply: Msg) -> dict[str, Any]:
    what = f"the answer to {call}"
    answer = parse_json(reply.data, what, max_bytes=_MAX_REPLY_BYTES)
    error = field_of(answer, "error", dict, what, {})
    if not error:
        return dict(answer)

    raise ApiError(
        call,
        field_of(error, "err_code", int, what, 0),
        field_of(error, "description", str, what, ""),
        field_of(error, "code", int, what, 0),
    )
