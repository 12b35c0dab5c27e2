"""Stream and consumer configurations as the server's own JSON.

An update replaces the whole configuration, and nats-py's dataclasses do not know every field: going
through them would silently reset the rest. So what exists is read, changed and written back as it came.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.client import JetStreamContext

__all__ = ("ServerConfig", "explicit_fields")


def explicit_fields(config: StreamConfig | ConsumerConfig | None) -> dict[str, Any]:
    """Return what was set on a nats-py dataclass, as the API's JSON (durations in nanoseconds)."""
    if config is None:
        return {}

    as_json = config.as_dict()
    return {
        field.name: as_json[field.name]
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default and field.name in as_json
    }


class ServerConfig:
    """Reads and writes configurations of streams and consumers.

    Every method raises nats-py's errors: `NotFoundError`, `APIError` with its `err_code`,
    `ServiceUnavailableError`; and `RequestTimeout`, `ConnectionLost`.
    """

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def stream(self, name: str) -> dict[str, Any]:
        return await self._config(f"STREAM.INFO.{name}", {})

    async def create_stream(self, config: dict[str, Any]) -> dict[str, Any]:
        return await self._config(f"STREAM.CREATE.{config['name']}", config)

    async def update_stream(self, config: dict[str, Any]) -> dict[str, Any]:
        return await self._config(f"STREAM.UPDATE.{config['name']}", config)

    async def consumer(self, stream: str, name: str) -> dict[str, Any]:
        return await self._config(f"CONSUMER.INFO.{stream}.{name}", {})

    async def create_consumer(self, stream: str, config: dict[str, Any]) -> dict[str, Any]:
        """Create; error 10148 when it exists with another configuration (nats-server 2.10 and newer)."""
        return await self._put_consumer(stream, config, "create")

    async def update_consumer(self, stream: str, config: dict[str, Any]) -> dict[str, Any]:
        return await self._put_consumer(stream, config, "update")

    async def _put_consumer(self, stream: str, config: dict[str, Any], action: str) -> dict[str, Any]:
        body = {"stream_name": stream, "config": config, "action": action}
        return await self._config(f"CONSUMER.CREATE.{stream}.{config['durable_name']}", body)

    async def _config(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        prefix: str = self._js._prefix
        reply: dict[str, Any] = await self._js._api_request(f"{prefix}.{call}", json.dumps(body).encode())
        config: dict[str, Any] = reply["config"]
        return config
