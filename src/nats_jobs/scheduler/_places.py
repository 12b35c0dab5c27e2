"""Where the jobs of schedules go, and which ledger keeps their ticks apart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import anyio

from .._untrusted import field_of
from ..errors import ApiError, ScheduleError, StreamDeleted
from ..jetstream import ErrorCode, JetStreamApi, retrying
from ..jobs import JobDef, logger, set_up_stream
from ._batch_ledger import BatchLedger
from ._claim_ledger import ClaimLedger, create_bucket
from ._ledger import Ledger
from ._run_ledger import RunLedger
from ._schedule import Schedule
from ._stream_setup import give_records

__all__ = ("JobStream", "Place", "Places")


class Place(NamedTuple):
    """A stream of jobs, and where the records of its schedules are."""

    config: dict[str, Any]
    ledger: Ledger
    jobs: JobStream


class JobStream:
    """See `StreamView`."""

    def __init__(self, api: JetStreamApi, name: str) -> None:
        self.name = name
        self._api = api

    async def has(self, sequence: int) -> bool:
        return await self._api.get_message(self.name, {"seq": sequence}) is not None

    async def check_exists(self) -> None:
        try:
            await self._api.stream(self.name)
        except ApiError as error:
            if error.err_code == ErrorCode.STREAM_NOT_FOUND:
                raise StreamDeleted(self.name, "") from None

            raise


class Places:
    """Finds the place of each schedule; looks at each stream once.

    Args:
        patience: seconds for which a set-up is tried while the server cannot answer.
    """

    def __init__(self, api: JetStreamApi, *, patience: float) -> None:
        self._api = api
        self._patience = patience
        self._lock = anyio.Lock()
        self._has_bucket = False
        self._places: dict[str, Place] = {}
        self._streams: dict[str, str] = {}

    async def of(self, schedule: Schedule[Any]) -> Place:
        """Return the place of a schedule's jobs and record; it stands when this returns.

        Raises:
            ScheduleError: no stream takes its jobs, or the stream cannot do what it asks for.
            ConfigMismatch, SetupFailed: the stream of its definition could not be set up.
        """
        async with self._lock:
            place = await retrying(lambda _: self._found(schedule.target, schedule.id), self._patience)

        if schedule.overlap == "skip" and place.config.get("retention", "limits") == "limits":
            reason = f"stream {place.jobs.name!r} keeps jobs that are done; a work queue is needed to see whether one is"
            raise ScheduleError("overlap", reason, schedule.id)

        return place

    async def of_functions(self, on_claimed: Callable[[datetime], None]) -> Place:
        """Return the place of the record of a function that recurs."""
        async with self._lock:
            if not self._has_bucket:
                await retrying(lambda _: create_bucket(self._api, 1), self._patience)
                self._has_bucket = True

        return Place({}, RunLedger(self._api, on_claimed), JobStream(self._api, RunLedger.stream))

    async def _found(self, target: JobDef[Any] | str, id: str) -> Place:
        name = target.stream if isinstance(target, JobDef) else await self._stream_of(target, id)
        if name not in self._places:
            if isinstance(target, JobDef):
                config = await set_up_stream(self._api, target, patience=self._patience)
            else:
                config = (await self._api.stream(name)).config

            may_update = not isinstance(target, JobDef) or target.update
            self._places[name] = await self._made(name, config, may_update=may_update)

        return self._places[name]

    async def _stream_of(self, subject: str, id: str) -> str:
        if subject not in self._streams:
            names = await self._api.request("STREAM.NAMES", {"subject": subject})
            found = field_of(names, "streams", list, "the answer to STREAM.NAMES", [])
            if not found:
                raise ScheduleError("target", f"no stream takes the subject {subject!r}", id)

            self._streams[subject] = str(found[0])

        return self._streams[subject]

    async def _made(self, name: str, config: dict[str, Any], *, may_update: bool) -> Place:
        jobs = JobStream(self._api, name)
        if may_update and await give_records(self._api, name, config):
            return Place(config, BatchLedger(self._api, name), jobs)

        logger.info("stream %s cannot keep schedules beside its jobs; they are kept in a bucket", name)
        await create_bucket(self._api, config.get("num_replicas", 1))
        return Place(config, ClaimLedger(self._api), jobs)
