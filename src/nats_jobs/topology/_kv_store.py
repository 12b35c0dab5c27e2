"""Snapshots in a JetStream key-value bucket, where only the holder of the last revision can save."""

from __future__ import annotations

from dataclasses import replace

from nats.js.errors import APIError, BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from ..jobs import Processor
from ._errors import Conflict
from ._json_form import check_size, dump_snapshot, load_snapshot
from ._node import check_token
from ._snapshot import Snapshot
from ._writer import Revision

__all__ = ("KVStore",)

# Bytes of a message that the bucket's headers take, with room to spare.
_HEADERS = 512
# The second is what a replicated stream says.
_WRONG_LAST_SEQUENCE = (10071, 10164)


class KVStore:
    """Keeps the last snapshot of each run under its id in `bucket`, which is made when it does not exist."""

    def __init__(self, processor: Processor, bucket: str = "topologies") -> None:
        self._processor = processor
        self._name = bucket
        self._found: KeyValue | None = None

    async def load(self, id: str) -> tuple[Snapshot, Revision] | None:
        """See `Store.load`.

        Raises:
            Malformed: what is stored is no snapshot.
        """
        bucket = await self._bucket()
        try:
            entry = await bucket.get(check_token("id", id))
        except KeyNotFoundError:
            return None

        revision = int(entry.revision or 0)
        return replace(load_snapshot(entry.value or b""), revision=revision), revision

    async def save(self, id: str, snapshot: Snapshot, expected: Revision | None) -> Revision:
        """See `Store.save`."""
        data = dump_snapshot(snapshot)
        check_size(snapshot, data, self._processor.connection.max_payload - _HEADERS)
        bucket = await self._bucket()
        try:
            if expected is None:
                return int(await bucket.create(check_token("id", id), data))

            return int(await bucket.update(check_token("id", id), data, last=expected))
        except KeyWrongLastSequenceError:
            raise Conflict(id) from None
        except APIError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                raise Conflict(id) from None

            raise

    async def ids(self) -> list[str]:
        """Return the ids of the runs, in alphabetical order; of more than 100,000 some of them."""
        await self._bucket()
        prefix = f"$KV.{self._name}."
        info = await self._processor.js.stream_info(f"KV_{self._name}", subjects_filter=f"{prefix}>")
        return sorted(subject.removeprefix(prefix) for subject in info.state.subjects or {})

    async def _bucket(self) -> KeyValue:
        if self._found is None:
            try:
                self._found = await self._processor.js.key_value(self._name)
            except BucketNotFoundError:
                self._found = await self._processor.js.create_key_value(bucket=self._name, history=1)

        return self._found
