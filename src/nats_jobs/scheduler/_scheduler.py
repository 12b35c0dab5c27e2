"""The schedules of one processor: one task, a heap of their next ticks, and one timer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

import anyio
from anyio.abc import TaskGroup

from .._clock import running_clock
from ..backoff import jittered
from ..errors import (
    EncodeError,
    Malformed,
    NatsJobsError,
    PayloadTooLarge,
    PublishRefused,
    ScheduleError,
    UsageError,
)
from ..events import TickRefused
from ..jetstream import JetStreamApi, is_retryable
from ..jobs import Emitter, logger
from ..wire import Msg
from ._changes import CHANGES, announce
from ._declaration import Declaration, declare
from ._entry import Entry
from ._follower import Follower
from ._handle import ScheduleHandle
from ._places import Places
from ._recurring import Recurring
from ._runner import Runner
from ._schedule import Schedule
from ._server_clock import ServerClock, time_of_stream

__all__ = ("Scheduler",)

# So many schedules are looked at at a time, most of them waiting for an answer.
_MAX_WORKERS = 16
# Seconds.
_CLOCK_INTERVAL = 60.0
_CLAIM_GRACE = 1.0
_CLOSE_TIMEOUT = 10.0
_MIN_WAIT = 0.001
_MIN_RETRY_DELAY = 0.05
_MAX_RETRY_DELAY = 5.0
# What lies in the job or in the stream that is to take it; the schedule itself goes on.
_OF_THE_TICK = (PublishRefused, ScheduleError, EncodeError, PayloadTooLarge, Malformed)


class Scheduler:
    """See `Service`. Its task runs in the processor's group while there are schedules.

    Args:
        stop_grace: seconds that what is under way may take after a stop.
        patience: seconds for which a set-up is repeated while the server cannot answer.
    """

    def __init__(
        self, api: JetStreamApi, group: TaskGroup, emitter: Emitter, *, stop_grace: float, patience: float
    ) -> None:
        self._api = api
        self._processor_group = group
        self._emitter = emitter
        self._stop_grace = stop_grace
        self._patience = patience
        self._clock = ServerClock(running_clock())
        self._asking = anyio.Lock()
        self._time_stream = ""
        self._places = Places(api, patience=patience)
        self._entries: dict[str, Entry] = {}
        self._ready: deque[tuple[Entry, datetime | None]] = deque()
        self._timer: list[tuple[datetime, int, Entry]] = []
        self._numbers = count()
        self._wake = anyio.Event()
        self._runners: list[Runner] = []
        self._workers = 0
        self._scope = anyio.CancelScope()
        self._stopping = False
        self.ended = anyio.Event()
        self.ended.set()

    def follow(self, schedule: Schedule[Any]) -> ScheduleHandle:
        """Declare and follow a schedule. What goes wrong ends the task."""
        return ScheduleHandle(self._add(_checked(schedule)), self.remove)

    def run(self, function: Recurring) -> ScheduleHandle:
        """Run a function at each tick that is claimed here. What goes wrong, but for what it raises, ends the task."""
        if not isinstance(function, Recurring):
            raise UsageError(f"{function!r} does not recur; put @recurring(id=…, rule=…) above it")

        runner = Runner(function, self._emitter.emit)
        self._runners.append(runner)
        return ScheduleHandle(self._add(function.schedule, runner=runner), self.remove)

    async def start(self, schedule: Schedule[Any]) -> ScheduleHandle:
        """Declare and follow a schedule, and return when its next tick is known. What goes wrong before that is raised here."""
        entry = self._add(_checked(schedule), awaited=True)
        try:
            await entry.wait_known()
        except BaseException:
            self.remove(entry)
            raise

        return ScheduleHandle(entry, self.remove)

    def _add(self, schedule: Schedule[Any], *, awaited: bool = False, runner: Runner | None = None) -> Entry:
        if self._stopping:
            raise UsageError(f"{schedule!r} cannot be declared: the processor was told to stop")

        if schedule.id in self._entries:
            raise ScheduleError("id", "this processor follows a schedule of that id already", schedule.id)

        entry = self._entries[schedule.id] = Entry(schedule, awaited=awaited, runner=runner)
        self._make_ready(entry)
        if self.ended.is_set():
            self.ended = anyio.Event()
            self._scope = anyio.CancelScope()
            self._processor_group.start_soon(self._run)

        return entry

    def declaration(self, id: str) -> Declaration | None:
        """Return what was declared under that id here, and is followed."""
        entry = self._entries.get(id)
        return None if entry is None or entry.follower is None else entry.follower.declaration

    def remove(self, entry: Entry, grace: float | None = None) -> None:
        """Follow a schedule no longer, when what is under way for it has ended. Its function may go on for `grace` seconds."""
        entry.stopping = True
        if entry.runner is not None:
            entry.runner.ask_to_stop(self._stop_grace if grace is None else grace)

        if not entry.busy:
            self._end(entry)

    def ask_to_stop(self, grace: float | None = None) -> None:
        self._stopping = True
        ends = anyio.current_time() + (self._stop_grace if grace is None else grace)
        # Functions are cancelled at the end of the grace, with the reason; claims have a moment more.
        self._scope.deadline = min(self._scope.deadline, ends + _CLAIM_GRACE)
        for entry in list(self._entries.values()):
            self.remove(entry, grace)

    # The task...

    async def _run(self) -> None:
        try:
            with self._scope, self._told_of_changes():
                # One may be added while the group of the ones before ends.
                while self._entries:
                    async with anyio.create_task_group() as group:
                        await self._follow_all(group)

                    await self._close_runners()
        finally:
            for entry in list(self._entries.values()):
                self._end(entry)

            await self._close_runners()
            self._ready.clear()
            self._timer.clear()
            self.ended.set()

    async def _close_runners(self) -> None:
        runners, self._runners = self._runners, []
        if runners:
            with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                for runner in runners:
                    await runner.close()

    async def _follow_all(self, group: TaskGroup) -> None:
        self._group = group
        group.start_soon(self._keep_time)
        while self._entries:
            self._start_workers(group)
            await self._wait()
            self._take_due()

        group.cancel_scope.cancel("no schedule is left")

    def _start_workers(self, group: TaskGroup) -> None:
        for _ in range(min(_MAX_WORKERS - self._workers, len(self._ready))):
            self._workers += 1
            group.start_soon(self._work)

    async def _wait(self) -> None:
        """Wait until the first tick, or until there is something else to do."""
        seconds = math.inf
        if self._timer:
            seconds = (self._timer[0][0] - self._clock.now()).total_seconds()

        with anyio.move_on_after(max(_MIN_WAIT, seconds)):
            await self._wake.wait()

        self._wake = anyio.Event()

    def _take_due(self) -> None:
        if not self._timer:
            return

        now = self._clock.now()
        while self._timer and self._timer[0][0] <= now:
            due, _, entry = heappop(self._timer)
            if entry.due == due and not entry.busy and not entry.ended.is_set():
                self._make_ready(entry, now)

    def _make_ready(self, entry: Entry, now: datetime | None = None) -> None:
        """Have it looked at as soon as a worker is free; as of `now`, if that is given."""
        entry.busy = True
        self._ready.append((entry, now))
        self._wake.set()

    async def _work(self) -> None:
        try:
            while self._ready:
                entry, now = self._ready.popleft()
                if entry.stopping:
                    self._end(entry)
                else:
                    await self._look_at(entry, now)
        finally:
            self._workers -= 1

    async def _look_at(self, entry: Entry, now: datetime | None) -> None:
        try:
            due = await self._step(entry, now)
        except NatsJobsError as error:
            due = self._on_error(entry, error)
        else:
            entry.tries = 0
            entry.due = due
            entry.known()

        if entry.runner is not None and (tick := entry.runner.take()) is not None:
            self._group.start_soon(self._run_function, entry, entry.runner, tick, due)
        else:
            self._place(entry, due)

    async def _run_function(self, entry: Entry, runner: Runner, tick: datetime, due: datetime | None) -> None:
        """Nothing else happens to the schedule meanwhile: the function runs once at a time."""
        await runner.run(tick)
        self._place(entry, due)

    async def _step(self, entry: Entry, now: datetime | None) -> datetime | None:
        if entry.follower is None:
            entry.follower, due = await self._begun(entry)
            return due

        if entry.changed:
            entry.changed = False
            entry.follower.forget()

        return await entry.follower.step(now or self._clock.now())

    async def _begun(self, entry: Entry) -> tuple[Follower, datetime | None]:
        schedule, runner = entry.schedule, entry.runner
        if runner is None:
            place = await self._places.of(schedule)
        else:
            place = await self._places.of_functions(runner.claimed)

        await self._ask_time(place.jobs.name)
        follower = Follower(
            declare(schedule, place.jobs.name),
            place.ledger,
            place.jobs,
            now=self._clock.now,
            emit=self._emitter.emit,
        )
        due = await follower.declare()
        if follower.has_declared:
            await announce(self._api.connection, schedule.id)

        return follower, due

    def _place(self, entry: Entry, due: datetime | None) -> None:
        """See to it that it is looked at again when it is due."""
        entry.busy = False
        if entry.ended.is_set():
            return

        if entry.stopping or (due is None and entry.follower is not None and entry.follower.is_over):
            self._end(entry)
        elif entry.changed:
            self._make_ready(entry)
        elif due is not None:
            entry.due = due
            heappush(self._timer, (due, next(self._numbers), entry))
            if self._timer[0][2] is entry:
                self._wake.set()

    def _end(self, entry: Entry) -> None:
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]

        entry.end()
        self._wake.set()

    def _on_error(self, entry: Entry, error: NatsJobsError) -> datetime | None:
        """Return when to try again; raise what another try cannot help."""
        passes = is_retryable(error) or (entry.follower is not None and isinstance(error, _OF_THE_TICK))
        if not passes:
            if entry.failed(error):
                entry.stopping = True
                return None

            raise error

        if not is_retryable(error):
            self._emitter.emit(TickRefused(id=entry.id, tick=entry.due, error=error))

        logger.debug("schedule %s: %s; trying again", entry.id, error)
        delay = jittered(entry.tries, first=_MIN_RETRY_DELAY, most=_MAX_RETRY_DELAY)
        entry.tries += 1
        return self._clock.now() + timedelta(seconds=delay)

    # Changes, and the time...

    @contextmanager
    def _told_of_changes(self) -> Iterator[None]:
        lowlevel = self._api.connection.lowlevel
        sid = lowlevel.subscribe_nowait(CHANGES, self._on_changed, on_resubscribed=self._on_resubscribed)
        try:
            yield
        finally:
            lowlevel.unsubscribe(sid)

    def _on_changed(self, message: Msg) -> None:
        # Anybody may have sent it: it is a reason to look, and no more.
        entry = self._entries.get(message.subject.rpartition(".")[2])
        if entry is not None:
            self._look_again(entry)

    def _on_resubscribed(self) -> None:
        """What was changed while the link was broken, nobody has told us."""
        for entry in self._entries.values():
            self._look_again(entry)

    def _look_again(self, entry: Entry) -> None:
        if not entry.changed and entry.follower is not None:
            entry.changed = True
            if not entry.busy:
                self._make_ready(entry)

    async def _keep_time(self) -> None:
        while True:
            await anyio.sleep(_CLOCK_INTERVAL)
            try:
                await self._clock.ask(lambda: time_of_stream(self._api, self._time_stream))
            except NatsJobsError as error:
                logger.debug("the server's time could not be asked for: %s", error)

            self._wake.set()

    async def _ask_time(self, stream: str) -> None:
        async with self._asking:
            self._time_stream = stream
            if not self._clock.is_set:
                await self._clock.ask(lambda: time_of_stream(self._api, stream))


def _checked(schedule: Any) -> Schedule[Any]:
    if not isinstance(schedule, Schedule):
        raise UsageError(f"{schedule!r} is not a Schedule")

    return schedule
