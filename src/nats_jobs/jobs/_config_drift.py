"""What exists at the server against what a definition asks for: what differs, and what an update has to send.

Which settings can be changed is known to the server alone, so it is asked: it differs from release to release.

A definition asks for what it sets. nats-py gives some fields a value of their own, `discard` for one, and
there it cannot be told whether the user wrote it. It counts as given when this definition, known by
its consumer, had set something else before; the stream or consumer remembers in its metadata which fields
those are. A setting of others is never reset because somebody left it out.

No IO.
"""

from __future__ import annotations

from typing import Any

from nats.js.api import ConsumerConfig, StreamConfig

from ..errors import Difference
from ..jetstream import default_fields, explicit_fields

__all__ = ("Asked", "listed", "merged")

_FILTERS = ("filter_subject", "filter_subjects")
# What the server makes of all of these is "no limit".
_UNLIMITED = (None, 0, -1)
_GIVEN = "nats_jobs.given"
# The fields to which nats-py gives a value of their own.
_DEFAULTED = (default_fields(StreamConfig()) | default_fields(ConsumerConfig())).keys()


class Asked:
    """What one definition asks of a stream or a consumer.

    Args:
        config: the user's.
        owner: the consumer of the definition.
        more: fields that the definition sets outside of `config`.
    """

    def __init__(
        self, config: StreamConfig | ConsumerConfig | None, owner: str, more: dict[str, Any] | None = None
    ) -> None:
        self.fields = explicit_fields(config) | (more or {})
        if isinstance(config, ConsumerConfig):
            # What it is called is its durable name.
            self.fields.pop("name", None)

        self._defaults = default_fields(config)
        self._record = f"{_GIVEN}.{owner}"
        self._given = ",".join(sorted(_DEFAULTED & self.fields.keys()))

    @property
    def to_create(self) -> dict[str, Any]:
        """Return the fields to make it with."""
        return self._remembering(self.fields) if self._given else self.fields

    def changes(self, existing: dict[str, Any]) -> dict[str, Any]:
        """Return the fields to update, with what has to be remembered; empty when nothing differs."""
        given_before = str((existing.get("metadata") or {}).get(self._record, "")).split(",")
        taken_back = {name: self._defaults[name] for name in given_before if name in self._defaults}
        differing = {
            name: value
            for name, value in (taken_back | self.fields).items()
            if not _is_same(value, existing.get(name))
        }
        is_remembered = self._given == ",".join(filter(None, given_before))
        return differing if is_remembered else self._remembering(differing)

    def without_record(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Return `changes` without what is only to be remembered."""
        metadata = {key: value for key, value in changes.get("metadata", {}).items() if key != self._record}
        others = {field: value for field, value in changes.items() if field != "metadata"}
        return others | {"metadata": metadata} if metadata else others

    def _remembering(self, fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {"metadata": fields.get("metadata", {}) | {self._record: self._given}}


def listed(changes: dict[str, Any], existing: dict[str, Any]) -> tuple[Difference, ...]:
    """Return the changes for an error."""
    return tuple(Difference(field, value, existing.get(field)) for field, value in changes.items())


def merged(existing: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the whole configuration, which an update has to send, with `changes` in it."""
    merged = existing | changes
    if "metadata" in changes:
        # Entries of others stay.
        merged["metadata"] = (existing.get("metadata") or {}) | changes["metadata"]

    for form, other in (_FILTERS, _FILTERS[::-1]):
        if form in changes:
            # The server takes one form only.
            merged.pop(other, None)

    return merged


def _is_same(ours: Any, servers: Any) -> bool:
    if isinstance(ours, dict) and isinstance(servers, dict):
        # The server adds entries of its own, such as metadata under `_nats.`.
        return all(_is_same(value, servers.get(key)) for key, value in ours.items())

    if isinstance(ours, list) and isinstance(servers, list):
        return len(ours) == len(servers) and all(map(_is_same, ours, servers))

    # The server leaves out what is empty.
    return ours == servers or (not ours and not servers) or (ours in _UNLIMITED and servers in _UNLIMITED)
