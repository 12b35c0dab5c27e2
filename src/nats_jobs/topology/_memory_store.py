"""Snapshots in memory, for tests and for runs that end with the process."""

from __future__ import annotations

from dataclasses import replace

from ._errors import Conflict
from ._snapshot import Snapshot
from ._writer import Revision

__all__ = ("MemoryStore",)


class MemoryStore:
    """Keeps the last snapshot of each run."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Snapshot, Revision]] = {}

    async def load(self, id: str) -> tuple[Snapshot, Revision] | None:
        """See `Store.load`."""
        found = self._kept.get(id)
        return found and (replace(found[0], revision=found[1]), found[1])

    async def save(self, id: str, snapshot: Snapshot, expected: Revision | None) -> Revision:
        """See `Store.save`."""
        _, revision = self._kept.get(id, (None, None))
        if revision != expected:
            raise Conflict(id)

        self._kept[id] = snapshot, (revision or 0) + 1
        return (revision or 0) + 1
