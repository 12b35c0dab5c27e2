"""Snapshots in files: one for each run, replaced as a whole."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from anyio import to_thread

from .._untrusted import field_of, parse_json
from ._errors import Conflict
from ._json_form import MAX_DEPTH, check_size, dump_snapshot, snapshot_of
from ._node import check_token
from ._snapshot import Snapshot
from ._writer import Revision

__all__ = ("FileStore",)

_WHAT = "snapshot file"
_MAX_BYTES = 256 * 1024 * 1024
# Bytes, or more, that the revision takes beside the snapshot.
_OF_REVISION = 64


class FileStore:
    """Keeps the last snapshot of each run as `<folder>/<id>.json`.

    A save is whole or not there, also after a power cut. Only one process at a time may save a run: a second
    one is noticed when it saves, unless both do so in the same moment.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    async def load(self, id: str) -> tuple[Snapshot, Revision] | None:
        """See `Store.load`.

        Raises:
            Malformed: the file is no snapshot.
        """
        return await to_thread.run_sync(self._load, self._path(id))

    async def save(self, id: str, snapshot: Snapshot, expected: Revision | None) -> Revision:
        """See `Store.save`."""
        data = dump_snapshot(snapshot)
        check_size(snapshot, data, _MAX_BYTES - _OF_REVISION)
        return await to_thread.run_sync(self._save, self._path(id), data, id, expected)

    def _path(self, id: str) -> Path:
        return self._folder / f"{check_token('id', id)}.json"

    def _load(self, path: Path) -> tuple[Snapshot, Revision] | None:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None

        fields = parse_json(text, _WHAT, max_bytes=_MAX_BYTES, max_depth=MAX_DEPTH)
        revision = field_of(fields, "revision", int, _WHAT, 1)
        fields.pop("revision", None)
        return replace(snapshot_of(fields), revision=revision), revision

    def _save(self, path: Path, data: bytes, id: str, expected: Revision | None) -> Revision:
        found = self._load(path)
        if (found and found[1]) != expected:
            raise Conflict(id)

        revision = (expected or 0) + 1
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        with beside.open("wb") as file:
            file.write(b'{"revision":%d,' % revision + data[1:])
            file.flush()
            os.fsync(file.fileno())

        beside.replace(path)
        self._sync_folder()
        return revision

    def _sync_folder(self) -> None:
        # The new name is on the disk only when the folder is.
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
