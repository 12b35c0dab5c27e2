"""How processes tell each other that a record was changed otherwise than by a tick: at most once, and only as a hint."""

from __future__ import annotations

from ..wire import Connection

__all__ = ("CHANGES", "announce")

_CHANGED = "nats_jobs.changed"
CHANGES = f"{_CHANGED}.*"
"""The subject of all changes. The last token is the id of the schedule; the content does not matter."""


async def announce(connection: Connection, id: str) -> None:
    """Have every process that follows the schedule read its record."""
    await connection.publish(f"{_CHANGED}.{id}")
