"""Everything that happens, as frozen values with plain fields. This list is API.

| event | when | Node library |
|---|---|---|
| `Start` | a worker is ready: its stream and consumer exist, and its first pull follows | `start` |
| `Pull` | messages were asked for | `pull` |
| `Receive` | a delivery is about to be performed | `receive` |
| `Working` | a lease extension was asked for | `working` |
| `Complete` | the handler returned | `complete` |
| `Error` | an attempt failed: the handler raised or ran past its timeout, or raised `Retry` on the last attempt | `error` |
| `Timeout` | a job ran past its timeout | `timeout` |
| `NoAck` | the server did not confirm how a job was settled | `noAck` |
| `Stop` | a worker was told to stop | `stop` |
| `LeaseLost` | another worker may have the job now | |
| `Interrupted` | a job was handed back: after a stop, a `Snooze` or a `Retry` | |
| `DeadLettered` | a job was moved to the dead letters | |
| `NotResponding` | a job keeps running although it was cancelled | |
| `LoopBlocked` | a job blocked the event loop for longer than a third of `ack_wait` | |
| `Connected`, `Disconnected` | the link to a server is up, is broken | |
| `TickEnqueued` | a job was enqueued for a tick of a schedule, by this processor | |
| `TickSkipped` | a tick of a schedule gets no job, and why | |
| `TickRefused` | a job for a tick could not be enqueued; it is tried again | |
| `FunctionReturned`, `FunctionFailed` | a recurring function has run for a tick, here | |
| `ScheduleReplaced` | a schedule has other terms from now on than this processor followed or declared | |
| `ServerError` | the server reported an error on the link | |
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import FrozenInstanceError
from datetime import datetime
from typing import Any, ClassVar, Never, dataclass_transform

from nats.js.api import ConsumerConfig

__all__ = (
    "Complete",
    "Connected",
    "DeadLettered",
    "Disconnected",
    "Error",
    "Event",
    "FunctionFailed",
    "FunctionReturned",
    "Interrupted",
    "JobEvent",
    "LeaseLost",
    "LoopBlocked",
    "NoAck",
    "NotResponding",
    "Pull",
    "Receive",
    "ScheduleEvent",
    "ScheduleReplaced",
    "ServerError",
    "Start",
    "Stop",
    "TickEnqueued",
    "TickRefused",
    "TickSkipped",
    "Timeout",
    "WorkerEvent",
    "Working",
)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Event:
    """Base of all events. `vars(event)` is a dict of its fields.

    To a type checker its subclasses are dataclasses. They are made by hand because `@dataclass` compiles six methods
    for each of them when it is imported, which takes longer than all else in this file together.
    """

    _fields: ClassVar[AbstractSet[str]] = frozenset()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        own = cls.__annotations__.keys()
        cls._fields |= own
        cls._defaults = cls._defaults | {name: vars(cls)[name] for name in own & vars(cls).keys()}

    def __init__(self, **fields: Any) -> None:
        if fields.keys() != self._fields:
            fields = self._defaults | fields
            wrong = ", ".join(sorted(fields.keys() ^ self._fields))
            if wrong:
                raise TypeError(f"{type(self).__name__}: missing or not known: {wrong}")

        self.__dict__.update(fields)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({fields})"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), frozenset(vars(self).items())))

    def __setattr__(self, name: str, value: object) -> Never:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> Never:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


class Connected(Event):
    """The link to `server` is up; `reconnects` counts how often it came back before."""

    server: str
    reconnects: int


class Disconnected(Event):
    """The link to `server` broke; reconnecting has begun."""

    server: str
    reason: str


class ServerError(Event):
    """The server sent `-ERR`: a missing permission, a limit. `Disconnected` follows if it also closed the link."""

    server: str
    reason: str


class WorkerEvent(Event):
    """Something about one worker. `consumer_config` is what the server has."""

    stream: str
    consumer: str
    consumer_config: ConsumerConfig


class Start(WorkerEvent):
    concurrency: int


class Pull(WorkerEvent):
    """Up to `batch` messages were asked for; the server keeps the request for `expires` seconds."""

    batch: int
    expires: float


class Stop(WorkerEvent):
    """`grace` is how many seconds the running jobs may go on, `running` how many there are."""

    grace: float
    running: int


class JobEvent(WorkerEvent):
    """Something about one delivery. `attempt` is the server's delivery count, from 1."""

    subject: str
    sequence: int
    attempt: int
    id: str | None


class Receive(JobEvent):
    pass


class Working(JobEvent):
    """The lease is being extended; `interval` is the seconds between two extensions."""

    interval: float


class Complete(JobEvent):
    """`duration` is in seconds; `exceeded` is by how many it was above the definition's `expected`, or 0."""

    duration: float
    exceeded: float


class Error(JobEvent):
    """`backoff` is the number of seconds until the next attempt; None when `attempts_exhausted`, also since its `max_age` is over."""

    error: Exception
    attempts_exhausted: bool
    backoff: float | None
    duration: float
    exceeded: float


class Timeout(JobEvent):
    """The job's scope was cancelled `timeout` seconds after its start."""

    timeout: float


class NoAck(JobEvent):
    """`settlement` is what was sent: `ack`, `nak` or `term`. The job may be performed again."""

    settlement: str
    reason: str


class LeaseLost(JobEvent):
    """`reason` says how the lease ended. Nothing more is sent for this delivery."""

    reason: str


class Interrupted(JobEvent):
    """`reason` is `stop`, `cancelled`, `snoozed`, `retry` or a text; the job is delivered again after `delay` seconds."""

    reason: str
    delay: float
    duration: float


class DeadLettered(JobEvent):
    """`reason` is `exhausted`, `expired`, `rejected`, `undecodable`, `crash-loop` or `interrupted`; `error` is the text of the error."""

    reason: str
    error: str


class NotResponding(JobEvent):
    """The job was cancelled for `reason` (the value of a `CancelReason`) and still runs after `seconds` more. It keeps its slot."""

    reason: str
    seconds: float


class LoopBlocked(JobEvent):
    """One step of the handler took `seconds` without letting other tasks run: every lease of the process was at risk."""

    seconds: float


class ScheduleEvent(Event):
    """Something about the schedule `id`. One processor of the fleet emits it."""

    id: str


class TickEnqueued(ScheduleEvent):
    """`late` is by how many seconds the job was stored after `tick`, by the server's clock."""

    tick: datetime
    late: float


class TickSkipped(ScheduleEvent):
    """`tick` gets no job; nor do all later ones up to `until`, if that is given.

    `reason` is `overlap` (the job before it waits or runs), `window` (older than that), `limit` (beyond `max_catch_up`),
    `paused`, or the `catch_up` policy that lets a missed tick go: `none` or `last`.
    """

    tick: datetime
    reason: str
    until: datetime | None = None


class TickRefused(ScheduleEvent):
    """`error` says why no job could be enqueued for `tick`, or not even the tick be told."""

    tick: datetime | None
    error: Exception


class FunctionReturned(ScheduleEvent):
    """`duration` is in seconds."""

    tick: datetime
    duration: float


class FunctionFailed(ScheduleEvent):
    """It raised `error`, or ran past its timeout (a `TimeoutError`). The tick is not run again."""

    tick: datetime
    duration: float
    error: Exception


class ScheduleReplaced(ScheduleEvent):
    """`old` and `new` are the rules, as text. The versions tell whether it was for that."""

    old: str
    new: str
    old_version: int
    new_version: int
