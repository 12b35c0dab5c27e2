"""What exists at the server against what a definition asks for: which differences can be mended, and how.

Compared is only what the definition says in so many words. No IO.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConfigMismatch, Difference
from ._definition import JobDef

__all__ = ("changes_to_consumer", "changes_to_stream", "merged")

# What nats-server 2.15 lets be changed; each was tried.
_CHANGEABLE_IN_STREAM = frozenset(
    [
        "subjects",
        "max_msgs",
        "max_bytes",
        "max_age",
        "max_msg_size",
        "max_consumers",
        "max_msgs_per_subject",
        "discard",
        "discard_new_per_subject",
        "duplicate_window",
        "description",
        "metadata",
        "allow_direct",
        "compression",
        "allow_atomic",
        "allow_batched",
        "num_replicas",
    ]
)
_CAN_BE_TURNED_ON = frozenset(["deny_delete", "deny_purge", "sealed", "allow_msg_ttl", "allow_msg_schedules"])
_CHANGEABLE_IN_CONSUMER = frozenset(
    [
        "ack_wait",
        "max_deliver",
        "max_ack_pending",
        "filter_subject",
        "filter_subjects",
        "headers_only",
        "description",
        "metadata",
        "pause_until",
        "sample_freq",
    ]
)
_FILTERS = ("filter_subject", "filter_subjects")


def changes_to_stream(defn: JobDef[Any], asked: dict[str, Any], existing: dict[str, Any]) -> dict[str, Any]:
    """Return the fields to update.

    Raises:
        ConfigMismatch: some differ that cannot, or must not, be changed.
    """
    return _changes(defn, "stream", defn.stream, asked, existing, _can_change_stream)


def changes_to_consumer(defn: JobDef[Any], asked: dict[str, Any], existing: dict[str, Any]) -> dict[str, Any]:
    """Return the fields to update. Raises as `changes_to_stream` does."""
    return _changes(defn, "consumer", defn.consumer, asked, existing, _can_change_consumer)


def _changes(
    defn: JobDef[Any],
    kind: str,
    name: str,
    asked: dict[str, Any],
    existing: dict[str, Any],
    can_change: Callable[[str, Any], bool],
) -> dict[str, Any]:
    differing = {field: value for field, value in asked.items() if not _same(value, existing.get(field))}
    stuck = tuple(
        Difference(field, value, existing.get(field))
        for field, value in differing.items()
        if not (defn.update and can_change(field, value))
    )
    if stuck:
        raise ConfigMismatch(kind, name, stuck)

    return differing


def merged(existing: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the whole configuration, which an update has to send, with `changes` in it."""
    merged = existing | changes
    for field, value in changes.items():
        if isinstance(value, dict):
            # Metadata of others stays.
            merged[field] = existing.get(field, {}) | value

    for form, other in (_FILTERS, _FILTERS[::-1]):
        if form in changes:
            # The server takes one form only (10136).
            merged.pop(other, None)

    return merged


def _can_change_stream(field: str, value: Any) -> bool:
    return field in _CHANGEABLE_IN_STREAM or (field in _CAN_BE_TURNED_ON and value is True)


def _can_change_consumer(field: str, value: Any) -> bool:
    return field in _CHANGEABLE_IN_CONSUMER


def _same(ours: Any, servers: Any) -> bool:
    if isinstance(ours, dict) and isinstance(servers, dict):
        # The server adds entries of its own, such as metadata under `_nats.`.
        return all(_same(value, servers.get(key)) for key, value in ours.items())

    # The server leaves out what is empty.
    return ours == servers or (not ours and not servers)
