"""Everything that happens, as frozen values with plain fields. This list is API.

| event | when | Node library |
|---|---|---|
| `Start` | a worker stands: stream and consumer are there, its first pull follows | `start` |
| `Pull` | messages were asked for | `pull` |
| `Receive` | a delivery is about to be performed | `receive` |
| `Working` | a lease extension was asked for | `working` |
| `Complete` | the handler returned | `complete` |
| `Error` | the handler raised, or asked for a `Retry` | `error` |
| `Timeout` | a job ran past its timeout | `timeout` |
| `NoAck` | the server did not confirm how a job was settled | `noAck` |
| `Stop` | a worker was told to stop | `stop` |
| `LeaseLost` | a job in hand may be with another worker now | |
| `Interrupted` | a job was handed back before it ended | |
| `DeadLettered` | a job was parked | |
| `NotResponding` | a job goes on although it was cancelled | |
| `LoopBlocked` | a job held the event loop up for longer than a third of `ack_wait` | |
| `Connected`, `Disconnected` | the link came up, went down | |
| `ServerError` | the server reported an error | |
"""

from __future__ import annotations

from dataclasses import dataclass

from nats.js.api import ConsumerConfig

__all__ = (
    "Complete",
    "Connected",
    "DeadLettered",
    "Disconnected",
    "Error",
    "Event",
    "Interrupted",
    "JobEvent",
    "LeaseLost",
    "LoopBlocked",
    "NoAck",
    "NotResponding",
    "Pull",
    "Receive",
    "ServerError",
    "Start",
    "Stop",
    "Timeout",
    "WorkerEvent",
    "Working",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Event):
    """The link to `server` is up; `reconnects` counts how often it came back before."""

    server: str
    reconnects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(Event):
    """The link to `server` broke; reconnecting has begun."""

    server: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerError(Event):
    """The server said `-ERR` on the link: a missing permission, a limit. `Disconnected` tells if it closed for it."""

    server: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvent(Event):
    """Something about one started definition. `consumer_config` is the server's."""

    stream: str
    consumer: str
    consumer_config: ConsumerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(WorkerEvent):
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull(WorkerEvent):
    """`batch` messages were asked for; the server keeps the request for `expires` seconds."""

    batch: int
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(WorkerEvent):
    """`grace` is how many seconds the jobs in hand may go on, `running` how many there are."""

    grace: float
    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent(WorkerEvent):
    """Something about one delivery. `attempt` is the server's delivery count, from 1."""

    subject: str
    sequence: int
    attempt: int
    id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receive(JobEvent):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Working(JobEvent):
    """The lease is being extended; `interval` is the seconds between two extensions."""

    interval: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete(JobEvent):
    """`duration` in seconds; `exceeded` is by how much it was over the definition's `expected`, 0 when it was not."""

    duration: float
    exceeded: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(JobEvent):
    """`backoff` is the seconds until the next attempt; None when `attempts_exhausted`."""

    error: Exception
    attempts_exhausted: bool
    backoff: float | None
    duration: float
    exceeded: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout(JobEvent):
    """The job's scope was cancelled `timeout` seconds after its start."""

    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAck(JobEvent):
    """`settlement` is what was sent (`ack`, `nak`, `term`). The job may be performed again."""

    settlement: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost(JobEvent):
    """`reason` tells how the lease ended. Nothing more is sent for this delivery."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted(JobEvent):
    """`reason`: `stop`, `cancelled`, `snoozed`, `retry`, or what else; the job is delivered again after `delay` seconds."""

    reason: str
    delay: float
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered(JobEvent):
    """`reason`: `exhausted`, `rejected`, `undecodable`, `crash-loop` or `interrupted`; `error` is its text."""

    reason: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotResponding(JobEvent):
    """The job was cancelled for `reason` (the value of a `CancelReason`) and still runs after `seconds` more. It keeps its slot."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked(JobEvent):
    """One step of the handler took `seconds` without giving way: every lease of the process was at risk."""

    seconds: float
