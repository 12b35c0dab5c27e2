"""What a user declares: `JobDef`. Frozen, and refused when built if it could not work."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StreamConfig

from ..backoff import Backoff, check_backoff
from ..codecs import MSGPACK, RAW, Codec
from ..errors import BadSubject, UsageError
from ..wire import check_subscribe_subject

if TYPE_CHECKING:
    from ._handlers import DetachedJob
    from ._job import Job

__all__ = ("JobDef", "Perform", "job")

T = TypeVar("T")

Perform: TypeAlias = "Callable[[Job[T]], Awaitable[object] | object] | Callable[[DetachedJob[T]], object]"

# Besides blanks: what would make several tokens of a name, or a path, at the server.
_BAD_IN_NAME = frozenset(".*>/\\\0")


@dataclass(frozen=True, kw_only=True, eq=False)
class JobDef(Generic[T]):
    """A kind of job: where its messages are, and how they are performed. `T` is the type of the payload.

    All durations are seconds.

    Raises:
        UsageError: a value out of its range, or two that contradict each other. The text names the field.
    """

    stream: str
    """Name of the stream. It is made when it does not exist, as a work queue with the stream's name as its subject."""

    perform: Perform[T]
    """`async def perform(job)`. A plain `def` is run in a worker thread."""

    stream_config: StreamConfig | None = None
    """Settings that win over ours."""

    consumer_config: ConsumerConfig | None = None
    """Settings that win over ours; `durable_name` is the consumer's name (default `<stream>Consumer`)."""

    update: bool = True
    """Change a stream or consumer that exists to what is set here, where the server can; without it every difference is
    a `ConfigMismatch`."""

    filter_subject: str | None = None
    """Only messages of this subject."""

    concurrency: int = 1
    """Jobs performed at once by one worker; 1 or more."""

    batch: int | None = None
    """Most messages asked for in one pull. Default: what free slots can start. More than `concurrency` means that
    messages wait here, with their lease kept."""

    pull_interval: float = 30.0
    """How long one pull request waits at the server; 1 or more."""

    num_attempts: int = 5
    """Failing attempts before the job is a dead letter; 1 or more."""

    backoff: Backoff = 1.0
    """Delay before the next attempt: seconds, a sequence of seconds of which the last repeats, or `f(attempt)`."""

    auto_extend_ack_timeout: bool = True
    """Keep the lease while the job runs. Without it a job is cancelled with LEASE_LOST after `ack_wait`."""

    timeout: float | None = None
    """After this the job is cancelled with TIMEOUT, which counts as a failed attempt; above 0."""

    expected: float | None = None
    """How long the job should take; events tell by how much it was exceeded; above 0."""

    stop_grace: float | None = None
    """How long a running job may go on after stop; 0 cancels at once, `math.inf` waits. Default: the processor's."""

    codec: Codec | None = None
    """How to decode a message without a `Content-Type` (default: raw bytes), and how `enqueue` encodes (default: MSGPACK)."""

    dead_letter: bool = True
    """Park exhausted and rejected jobs in the stream DEAD_LETTERS; without it they are dropped."""

    run_in: Literal["thread", "process"] = "thread"
    """Where a plain `def` runs. In a process it is given a `DetachedJob`, and is killed when it is cut short; it must
    be a function at the top of a module."""

    def __init_subclass__(cls) -> None:
        raise UsageError("JobDef is final: build one with the fields you need")

    def __post_init__(self) -> None:
        _check_name("stream", self.stream)
        _check_perform(self.perform)
        _check_types(self)
        _check_numbers(self)
        check_backoff(self.backoff)
        if self.filter_subject is not None:
            _check_filter(self.filter_subject)

        _check_stream_config(self)
        _check_consumer_config(self)

    @property
    def is_async(self) -> bool:
        """Whether the handler is a coroutine function."""
        return _is_async(self.perform)

    @property
    def consumer(self) -> str:
        """The durable name of the consumer."""
        config = self.consumer_config
        return (config and (config.durable_name or config.name)) or f"{self.stream}Consumer"

    @property
    def encoder(self) -> Codec:
        """What `enqueue` encodes with."""
        return self.codec or MSGPACK

    @property
    def decoder(self) -> Codec:
        """What a message without a content type is decoded with."""
        return self.codec or RAW

    def __repr__(self) -> str:
        name = getattr(self.perform, "__qualname__", repr(self.perform))
        return f"JobDef(stream={self.stream!r}, consumer={self.consumer!r}, perform={name})"


def job(stream: str, **options: Any) -> Callable[[Callable[[Job[T]], Awaitable[object] | object]], JobDef[T]]:
    """Make a `JobDef` from the function below it.

        @job("ORDERS", concurrency=10)
        async def ship(job: Job[Order]) -> None: ...

    Args:
        stream: see `JobDef.stream`.
        **options: the other fields of `JobDef`.

    Raises:
        UsageError: an unknown field (with the near one), or what `JobDef` refuses.
    """
    # Also for a bare `@job`, which hands over the function instead.
    _check_name("stream", stream)
    known = [field.name for field in fields(JobDef) if field.default is not MISSING]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise UsageError(f"a job definition has no field {name!r}; {hint}")

    def define(perform: Callable[[Job[T]], Awaitable[object] | object]) -> JobDef[T]:
        return JobDef(stream=stream, perform=perform, **options)

    return define


def _is_async(perform: Any) -> bool:
    return any(map(inspect.iscoroutinefunction, _called(perform)))


def _called(perform: Any) -> tuple[Any, Any]:
    """Return what may run when `perform` is called: the function inside partials, and the `__call__` of an object."""
    while isinstance(perform, partial):
        perform = perform.func

    return perform, type(perform).__call__


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise UsageError(f"{what} is {name!r}; a name is needed")

    if bad := sorted(mark for mark in set(name) if mark in _BAD_IN_NAME or mark.isspace()):
        raise UsageError(f"{what} is {name!r}; a name cannot contain {' '.join(map(repr, bad))}")


def _check_perform(perform: Any) -> None:
    if not callable(perform):
        raise UsageError(f"perform is {perform!r}; a function that takes the job is needed")

    if any(
        inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called)
        for called in _called(perform)
    ):
        raise UsageError(
            f"perform is a generator function ({perform!r}); remove its yield: nobody would iterate it"
        )

    try:
        inspect.signature(perform).bind(None)
    except TypeError:
        raise UsageError(
            f"perform is called with one argument, the job; {inspect.signature(perform)} does not take one"
        ) from None
    except ValueError:
        # Some callables written in C have no signature.
        pass


def _check_types(defn: JobDef[Any]) -> None:
    for name, value, kind in (
        ("stream_config", defn.stream_config, StreamConfig),
        ("consumer_config", defn.consumer_config, ConsumerConfig),
    ):
        if value is not None and not isinstance(value, kind):
            raise UsageError(f"{name} is {value!r}; a nats.js.api.{kind.__name__} is needed")

    if defn.codec is not None and not (hasattr(defn.codec, "encode") and hasattr(defn.codec, "decode")):
        raise UsageError(
            f"codec is {defn.codec!r}; one of nats_jobs.codecs, or an object with encode and decode, is needed"
        )

    for name in ("auto_extend_ack_timeout", "dead_letter", "update"):
        if not isinstance(getattr(defn, name), bool):
            raise UsageError(f"{name} is {getattr(defn, name)!r}; True or False is needed")

    if defn.run_in not in ("thread", "process"):
        raise UsageError(f"run_in is {defn.run_in!r}; 'thread' or 'process' is needed")

    if defn.run_in == "process":
        _check_can_travel(defn)


def _check_can_travel(defn: JobDef[Any]) -> None:
    name = getattr(defn.perform, "__qualname__", "<")
    if defn.is_async:
        raise UsageError("run_in is 'process' and perform is async; a plain def runs in a process")

    if "<" in name:
        raise UsageError(
            "run_in is 'process': perform must be a function at the top of a module, or the process cannot find it"
        )


def _check_numbers(defn: JobDef[Any]) -> None:
    for name, least in (("concurrency", 1), ("num_attempts", 1), ("batch", 1)):
        value = getattr(defn, name)
        if value is None and name == "batch":
            continue

        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name} is {value!r}; a whole number, {least} or more, is needed")

    for name in ("timeout", "expected"):
        value = getattr(defn, name)
        if value is not None and not _is_seconds(value, above=0):
            raise UsageError(f"{name} is {value!r}; seconds above 0 are needed, or None for no limit")

    if not _is_seconds(defn.pull_interval, above=0) or defn.pull_interval < 1:
        raise UsageError(f"pull_interval is {defn.pull_interval!r}; 1 second or more is needed")

    grace = defn.stop_grace
    if (grace is not None and grace != math.inf and not _is_seconds(grace, above=-1)) or (grace or 0) < 0:
        raise UsageError(f"stop_grace is {grace!r}; seconds, 0 or more, are needed (math.inf waits for ever)")


def _is_seconds(value: object, *, above: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value < math.inf


def _check_filter(subject: object) -> None:
    if not isinstance(subject, str):
        raise UsageError(
            f"filter_subject is {subject!r}; one subject is needed, several go into consumer_config.filter_subjects"
        )

    try:
        check_subscribe_subject(subject)
    except BadSubject as error:
        raise UsageError(f"filter_subject: {error}") from None


def _check_stream_config(defn: JobDef[Any]) -> None:
    config = defn.stream_config
    if config is None:
        return

    if config.name is not None and config.name != defn.stream:
        raise UsageError(
            f"stream is {defn.stream!r} and stream_config.name is {config.name!r}; leave the second out"
        )

    if config.retention is RetentionPolicy.INTEREST:
        raise UsageError(
            "stream_config.retention is interest: such a stream drops every message that comes before the first "
            "consumer exists; use work queue (the default) or limits"
        )


def _check_consumer_config(defn: JobDef[Any]) -> None:
    config = defn.consumer_config
    if config is None:
        return

    _check_name("consumer_config.durable_name", defn.consumer)
    if config.durable_name and config.name and config.durable_name != config.name:
        raise UsageError("consumer_config has a name and another durable_name; leave the name out")

    if config.backoff:
        raise UsageError(
            "consumer_config.backoff replaces ack_wait at the server: it is the length of the lease, not a retry delay; "
            "use the backoff field of the definition"
        )

    if config.deliver_subject or config.deliver_group:
        raise UsageError(
            "consumer_config.deliver_subject makes a push consumer; jobs are pulled: leave it out"
        )

    if config.ack_policy not in (None, AckPolicy.EXPLICIT):
        raise UsageError("consumer_config.ack_policy must be explicit: every job is settled by itself")

    if config.inactive_threshold:
        raise UsageError(
            "consumer_config.inactive_threshold deletes the consumer, with its place in the stream; leave it out"
        )

    if config.ack_wait is not None and not config.ack_wait > 0:
        raise UsageError(f"consumer_config.ack_wait is {config.ack_wait!r}; seconds above 0 are needed")

    if config.max_deliver is not None and 0 < config.max_deliver < defn.num_attempts:
        raise UsageError(
            f"num_attempts is {defn.num_attempts} and consumer_config.max_deliver {config.max_deliver}: the server would stop "
            "delivering before the last attempt; leave max_deliver out"
        )

    if config.filter_subject and defn.filter_subject and config.filter_subject != defn.filter_subject:
        raise UsageError("filter_subject and consumer_config.filter_subject differ; give one of them")

    if config.filter_subjects and defn.filter_subject:
        raise UsageError("filter_subject and consumer_config.filter_subjects together; give one of them")

    retention = defn.stream_config.retention if defn.stream_config else None
    if retention in (None, RetentionPolicy.WORK_QUEUE) and config.deliver_policy not in (
        None,
        DeliverPolicy.ALL,
    ):
        raise UsageError("consumer_config.deliver_policy must be all: a work queue has no other")
