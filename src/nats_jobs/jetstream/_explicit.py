"""What a user set on one of nats-py's configurations, as the server's own JSON (durations in nanoseconds)."""

from __future__ import annotations

import dataclasses
from typing import Any

from nats.js.api import ConsumerConfig, StreamConfig

__all__ = ("default_fields", "explicit_fields")

Config = StreamConfig | ConsumerConfig


def explicit_fields(config: Config | None) -> dict[str, Any]:
    """Return the fields that are not as nats-py has them by default."""
    return {name: value for name, (value, is_default) in _fields(config).items() if not is_default}


def default_fields(config: Config | None) -> dict[str, Any]:
    """Return the fields that have a value, and the one that nats-py gives them.

    Whether the user wrote it or left it out cannot be told.
    """
    return {name: value for name, (value, is_default) in _fields(config).items() if is_default}


def _fields(config: Config | None) -> dict[str, tuple[Any, bool]]:
    """Return for each field that has a value its JSON, and whether it is nats-py's default."""
    if config is None:
        return {}

    as_json = config.as_dict()
    return {
        field.name: (as_json[field.name], getattr(config, field.name) == field.default)
        for field in dataclasses.fields(config)
        if field.name in as_json and getattr(config, field.name) is not None
    }
