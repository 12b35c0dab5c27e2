"""What a definition may say: each field by itself, and against the others. Every refusal names its field."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any, TypeAlias

from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StreamConfig

from ..backoff import check_backoff
from ..errors import BadSubject, UsageError
from ..wire import check_subscribe_subject

__all__ = ("check", "check_name", "is_async")

# A `JobDef` whose fields may hold anything yet.
Unchecked: TypeAlias = Any

# Besides blanks: what would make several tokens of a name, or a path, at the server.
_BAD_IN_NAME = frozenset(".*>/\\\0")
# Seconds. Half of it is a heartbeat, which must not be mistaken for silence.
_SHORTEST_PULL = 0.1


def check(defn: Unchecked) -> None:
    """Refuse a definition that could not work.

    Raises:
        UsageError: a value out of its range, or two that contradict each other.
    """
    check_name("stream", defn.stream)
    _check_perform(defn.perform)
    _check_types(defn)
    _check_numbers(defn)
    check_backoff(defn.backoff)
    if defn.filter_subject is not None:
        _check_filter(defn.filter_subject)

    _check_stream_config(defn)
    _check_consumer_config(defn)


def is_async(perform: Any) -> bool:
    """Whether calling it makes a coroutine."""
    return any(map(inspect.iscoroutinefunction, _called(perform)))


def _called(perform: Any) -> tuple[Any, Any]:
    """Return what may run when `perform` is called: the function inside partials, and the `__call__` of an object."""
    while isinstance(perform, partial):
        perform = perform.func

    return perform, type(perform).__call__


def check_name(what: str, name: object) -> None:
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


def _check_types(defn: Unchecked) -> None:
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


def _check_can_travel(defn: Unchecked) -> None:
    name = getattr(defn.perform, "__qualname__", "<")
    if defn.is_async:
        raise UsageError("run_in is 'process' and perform is async; a plain def runs in a process")

    bound_to = getattr(defn.perform, "__self__", None)
    if "<" in name or (inspect.ismethod(defn.perform) and not isinstance(bound_to, type)):
        raise UsageError(
            "run_in is 'process': perform must be a function at the top of a module, or the process cannot find it"
        )


def _check_numbers(defn: Unchecked) -> None:
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

    if not _is_seconds(defn.max_delay, above=0):
        raise UsageError(f"max_delay is {defn.max_delay!r}; seconds above 0 are needed")

    if not _is_seconds(defn.pull_interval, above=0) or defn.pull_interval < _SHORTEST_PULL:
        raise UsageError(
            f"pull_interval is {defn.pull_interval!r}; {_SHORTEST_PULL} seconds or more are needed"
        )

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


def _check_stream_config(defn: Unchecked) -> None:
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


def _check_consumer_config(defn: Unchecked) -> None:
    config = defn.consumer_config
    if config is None:
        return

    check_name("consumer_config.durable_name", defn.consumer)
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
        raise UsageError(
            "both filter_subject and consumer_config.filter_subjects were given; give one of them"
        )

    retention = defn.stream_config.retention if defn.stream_config else None
    if retention in (None, RetentionPolicy.WORK_QUEUE) and config.deliver_policy not in (
        None,
        DeliverPolicy.ALL,
    ):
        raise UsageError("consumer_config.deliver_policy must be all: a work queue allows no other")
