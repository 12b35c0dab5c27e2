"""What a user set on one of nats-py's configurations, as the server's own JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from nats.js.api import ConsumerConfig, StreamConfig

__all__ = ("explicit_fields",)


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
