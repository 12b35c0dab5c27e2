"""What a user declares: `JobDef`. Frozen, and refused when built if it could not work."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from dataclasses import MISSING, dataclass, fields
from typing import (
    Any,
    Generic,
    Literal,
    Never,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from nats.js.api import ConsumerConfig, StreamConfig

from ..backoff import Backoff
from ..codecs import MSGPACK, RAW, Codec
from ..errors import UsageError
from ._definition_checks import check, check_name, is_async
from ._detached_job import DetachedJob
from ._job import Job
from ._not_before import MAX_DELAY

__all__ = ("JobDef", "JobOptions", "PayloadOf", "Perform", "job")

T = TypeVar("T")

# A payload of a definition whose type is `T`. The callable is nothing that could be enqueued: it makes mypy find `T` from
# the definition alone, and then see that the dict that is written there is the TypedDict that is needed.
PayloadOf: TypeAlias = "T | Callable[[Never], T]"

Perform: TypeAlias = Callable[[Job[T]], Awaitable[object] | object] | Callable[[DetachedJob[T]], object]


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

    max_delay: float = MAX_DELAY
    """Longest time for which a job may be enqueued in advance; above 0, default a year. What asks for more is refused
    when it is enqueued, and a message that carries more becomes a dead letter."""

    expected: float | None = None
    """How long the job should take; events tell by how much it was exceeded; above 0."""

    stop_grace: float | None = None
    """How long a running job may go on after stop; 0 cancels at once, `math.inf` waits. Default: the processor's."""

    codec: Codec | None = None
    """How to decode a message without a `Content-Type` (default: raw bytes), and how `enqueue` encodes (default: MSGPACK).
    `codecs.typed(Order)` checks payloads both ways."""

    dead_letter: bool = True
    """Park exhausted and rejected jobs in the stream DEAD_LETTERS; without it they are dropped."""

    run_in: Literal["thread", "process"] = "thread"
    """Where a plain `def` runs. In a process it is given a `DetachedJob`, and is killed when it is cut short; it must
    be a function at the top of a module. What it raises comes back as `RemoteError`, but Retry, Snooze and Reject as
    themselves; what it prints and logs goes where this process prints and logs."""

    def __init_subclass__(cls) -> None:
        raise UsageError("JobDef is final: build one with the fields you need")

    def __post_init__(self) -> None:
        check(self)
        # A member of an enumeration may be a str whose format() is its name, and subjects are made of these.
        for field in ("stream", "filter_subject"):
            if (text := getattr(self, field)) is not None:
                object.__setattr__(self, field, str.__str__(text))

    @property
    def __handler__(self) -> Any:
        return self.perform

    @property
    def is_async(self) -> bool:
        """Whether the handler is a coroutine function."""
        return is_async(self.perform)

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


class JobOptions(TypedDict, total=False):
    """Keyword arguments of `@job`: the fields of `JobDef`, which has their defaults and meaning, but for two."""

    stream_config: StreamConfig | None
    consumer_config: ConsumerConfig | None
    update: bool
    filter_subject: str | None
    concurrency: int
    batch: int | None
    pull_interval: float
    num_attempts: int
    backoff: Backoff
    auto_extend_ack_timeout: bool
    timeout: float | None
    max_delay: float
    expected: float | None
    stop_grace: float | None
    codec: Codec | None
    dead_letter: bool
    run_in: Literal["thread", "process"]


class _Decorator(Protocol):
    @overload
    def __call__(self, perform: Callable[[Job[T]], Awaitable[object] | object], /) -> JobDef[T]: ...

    @overload
    def __call__(self, perform: Callable[[DetachedJob[T]], object], /) -> JobDef[T]: ...


def job(stream: str, **options: Unpack[JobOptions]) -> _Decorator:
    """Make a `JobDef` from the function below it.

        @job("ORDERS", concurrency=10)
        async def ship(job: Job[Order]) -> None: ...

    Args:
        stream: see `JobDef.stream`.
        **options: the other fields of `JobDef`.

    Raises:
        UsageError: an unknown field (with the near one), or what `JobDef` refuses.
    """
    if callable(stream):
        name = getattr(stream, "__name__", repr(stream))
        raise UsageError(f'@job needs the name of the stream: write @job("ORDERS") above {name}')

    check_name("stream", stream)
    known = [field.name for field in fields(JobDef) if field.default is not MISSING]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the known ones are: {', '.join(known)}"
            raise UsageError(f"a job definition has no field {name!r}; {hint}")

    def define(perform: Any) -> JobDef[Any]:
        return JobDef(stream=stream, perform=perform, **options)

    return define
