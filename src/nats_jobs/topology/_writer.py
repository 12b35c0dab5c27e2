"""Stores the newest snapshot while a run goes on: at most one save at a time, and none that is outdated."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import anyio

from ._errors import Conflict, SnapshotTooLarge, TopologyError
from ._json_form import dump_snapshot
from ._snapshot import Snapshot

__all__ = ("Revision", "Saving", "Store", "Writer")

Revision: TypeAlias = int

_FIRST_RETRY = 0.1
_MAX_RETRY = 2.0
_LAST_TRIES = 5
_SAVE_TIMEOUT = 10.0
# Seconds without a change after which the store is asked whether the run is still ours.
_LOOK_INTERVAL = 5.0
# A failed save that is still on its way is one of the last.
_MAX_UNCONFIRMED = 8


class Store(Protocol):
    """Where snapshots are kept, by the id of their run."""

    async def load(self, id: str) -> tuple[Snapshot, Revision] | None:
        """Return the snapshot and its revision; None when there is none."""
        ...

    async def save(self, id: str, snapshot: Snapshot, expected: Revision | None) -> Revision:
        """Store a snapshot in the place of revision `expected` (None: of none), and return its revision.

        Raises:
            Conflict: another revision is stored.
            SnapshotTooLarge: it does not fit.
        """
        ...


@dataclass(frozen=True, slots=True)
class Saving:
    """Where a run is saved, in the place of which revision, and how soon: see `start_from`."""

    store: Store | None
    id: str
    revision: Revision | None
    debounce: float
    max_wait: float


class Writer:
    """The saves of one run. `take` returns its newest snapshot."""

    def __init__(self, saving: Saving, take: Callable[[], Snapshot], on_conflict: Callable[[], None]) -> None:
        self.revision = saving.revision
        """Of what is stored, as far as we know."""
        self._store = saving.store
        self._id = saving.id
        self._debounce = saving.debounce
        self._max_wait = saving.max_wait
        self._take = take
        self._on_conflict = on_conflict
        self._changes = 0
        self._saved = -1
        self._changed = anyio.Event()
        self._lock = anyio.Lock()
        self._save_scope = anyio.CancelScope()
        self._unconfirmed: deque[Snapshot] = deque(maxlen=_MAX_UNCONFIRMED)

    def changed(self) -> None:
        """There is something to store."""
        self._changes += 1
        self._changed.set()

    def abandon(self) -> None:
        """Store nothing more, and do not wait for a save under way: the run belongs to somebody else."""
        self._store = None
        self._save_scope.cancel("the run belongs to somebody else")

    async def run(self) -> None:
        """Store what changes until cancelled. A store that fails is tried again; see `flush` for what is raised."""
        while self._store is not None:
            with anyio.move_on_after(_LOOK_INTERVAL):
                await self._changed.wait()

            if self._changed.is_set():
                await self._calm()
                self._changed = anyio.Event()
                await self._flush_patiently(math.inf)
            else:
                await self._look(self._store)

    async def flush(self) -> None:
        """Return when the newest state is stored.

        Raises:
            Conflict, SnapshotTooLarge, TopologyError: it cannot be.
            Exception: the store failed time and again.
        """
        await self._flush_patiently(_LAST_TRIES)

    async def _calm(self) -> None:
        """Wait until nothing has changed for `debounce`, but no longer than `max_wait`."""
        if not self._debounce:
            return

        with anyio.move_on_after(self._max_wait):
            seen = -1
            while seen != self._changes:
                seen = self._changes
                await anyio.sleep(self._debounce)

    async def _flush_patiently(self, tries: float) -> None:
        delay, tried = _FIRST_RETRY, 0
        while True:
            try:
                return await self._flush()
            except Conflict:
                self._on_conflict()
                raise
            except (SnapshotTooLarge, TopologyError):
                raise
            except Exception:
                tried += 1
                if tried >= tries:
                    raise

            await anyio.sleep(delay)
            delay = min(delay * 2, _MAX_RETRY)

    async def _look(self, store: Store) -> None:
        """Find out whether somebody else has the run, or has cancelled it, although nothing is to be saved."""
        async with self._lock:
            try:
                with anyio.fail_after(_SAVE_TIMEOUT):
                    found = await store.load(self._id)
                    ours = (found and found[1]) == self.revision or await self._adopt(store)
            except Exception:
                # The next look, or the next save, will tell.
                return

        if not ours:
            self._on_conflict()
            raise Conflict(self._id)

    async def _flush(self) -> None:
        async with self._lock:
            if self._store is None or self._saved == self._changes:
                return

            changes = self._changes
            await self._save(self._store, self._take())
            self._saved = changes

    async def _save(self, store: Store, snapshot: Snapshot) -> None:
        while True:
            try:
                # Not cut off by a cancellation: it would be done all the same, and after the next look at the store.
                with anyio.fail_after(_SAVE_TIMEOUT, shield=True) as self._save_scope:
                    self.revision = await store.save(self._id, snapshot, self.revision)

                return self._unconfirmed.clear()
            except Conflict:
                if not await self._adopt(store):
                    raise
            except Exception:
                self._unconfirmed.append(snapshot)
                raise

    async def _adopt(self, store: Store) -> bool:
        """Go on from what is stored when it is ours, of a save that failed for us but was done; else return False."""
        found = await store.load(self._id) if self._unconfirmed else None
        if found is None or found[1] == self.revision:
            return False

        if not any(_same(found[0], each) for each in self._unconfirmed):
            return False

        self.revision = found[1]
        return True


def _same(one: Snapshot, other: Snapshot) -> bool:
    return dump_snapshot(one) == dump_snapshot(other)
