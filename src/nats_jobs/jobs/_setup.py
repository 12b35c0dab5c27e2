"""Makes the stream and the consumer of a definition, or binds to those that are there.

What exists is compared with what the definition asks for. Equal, or only a default of ours differs: bind. Else
update, unless the definition forbids that; what the server refuses is a `ConfigMismatch`, in its words.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .. import dead_letters, delays
from ..errors import (
    ApiError,
    ConnectionLost,
    NoResponders,
    PermissionDenied,
    RequestTimeout,
    SetupFailed,
    StreamDeleted,
)
from ..jetstream import ErrorCode, Info, JetStreamApi, changing, retrying
from ..units import from_ns
from ._bound_consumer import BoundConsumer, check_usable
from ._config_drift import Asked, merged
from ._default_config import UNLIMITED, asked_of_consumer, default_consumer, default_stream
from ._definition import JobDef
from ._emitter import logger
from ._keeping_clear import asked_of_stream, asks_for_schedules, gives_schedules, kept_clear
from ._limits import SPARE_DELIVERIES
from ._reconcile import existing_or_made, reconciled

__all__ = ("set_up", "set_up_again", "set_up_stream")

T = TypeVar("T")

# What a consumer has when its maker said nothing (JsDefaultMaxAckPending of nats-server).
_SERVERS_MAX_ACK_PENDING = 1000


async def set_up(api: JetStreamApi, defn: JobDef[Any], *, patience: float) -> BoundConsumer:
    """See to it that stream, consumer and dead-letter stream stand.

    Args:
        patience: seconds for which each is tried while the server cannot answer, as during an election.

    Raises:
        ConfigMismatch: what exists contradicts the definition, and cannot be changed.
        SetupFailed: the server refused, or did not answer in time, with its reason.
    """
    stream = await set_up_stream(api, defn, patience=patience)
    if defn.dead_letter:
        # As many as the jobs have: a node that is down must not keep them from being parked.
        replicas = stream.get("num_replicas", 1)
        await _with_retries(
            "stream", dead_letters.STREAM, lambda: _set_up_dead_letters(api, replicas), patience
        )

    consumer = await _with_retries(
        "consumer", defn.consumer, lambda: _set_up_consumer(api, defn, stream), patience
    )
    return BoundConsumer.of(defn, consumer, from_ns(stream.get("max_age", 0)))


async def set_up_stream(api: JetStreamApi, defn: JobDef[Any], *, patience: float) -> dict[str, Any]:
    """See to it that the stream of a definition stands; return its configuration. Raises as `set_up`."""
    return await _with_retries("stream", defn.stream, lambda: _set_up_stream(api, defn), patience)


async def set_up_again(api: JetStreamApi, defn: JobDef[Any], *, patience: float) -> BoundConsumer:
    """See to it that the consumer stands that a worker has lost, and what belongs to it.

    A stream that is missing, with the jobs that were in it, is not made again as if nothing had happened.

    Raises:
        StreamDeleted: the stream is missing.
        ConfigMismatch, SetupFailed: as `set_up`.
    """
    try:
        await _with_retries("stream", defn.stream, lambda: api.stream(defn.stream), patience)
    except SetupFailed as failed:
        if isinstance(failed.__cause__, ApiError) and failed.__cause__.err_code == ErrorCode.STREAM_NOT_FOUND:
            raise StreamDeleted(defn.stream, defn.consumer) from None

        raise

    return await set_up(api, defn, patience=patience)


async def _set_up_stream(api: JetStreamApi, defn: JobDef[Any]) -> dict[str, Any]:
    level = await api.level() if asks_for_schedules(defn) else 0
    info = await existing_or_made(lambda: api.stream(defn.stream), lambda: _make_stream(api, defn, level))
    asked, changes = _changes_of_stream(defn, info, level)
    if not changes or not defn.update:
        return (await reconciled(defn, "stream", asked, changes, info, api.update_stream)).config

    async with changing(api, defn.stream):
        info = await api.stream(defn.stream)
        asked, changes = _changes_of_stream(defn, info, level)
        return (await reconciled(defn, "stream", asked, changes, info, api.update_stream)).config


def _changes_of_stream(defn: JobDef[Any], info: Info, level: int) -> tuple[Asked, dict[str, Any]]:
    asked = asked_of_stream(defn, info.config, level)
    changes = asked.changes(info.config)
    return asked, changes | _shortened_duplicate_window(asked, changes, info.config)


async def _make_stream(api: JetStreamApi, defn: JobDef[Any], level: int) -> Info:
    plain = default_stream(defn)
    if not gives_schedules(defn, plain, level):
        return await api.create_stream(plain)

    info = await api.create_stream(delays.with_schedules(plain))
    if delays.has_schedules(info.config):
        return info

    # The leader is older than the server that we are connected to, and would store a schedule as a job.
    return await api.update_stream(info.config | {"subjects": plain["subjects"]})


async def _set_up_dead_letters(api: JetStreamApi, replicas: int) -> dict[str, Any]:
    info = await existing_or_made(
        lambda: api.stream(dead_letters.STREAM),
        lambda: api.create_stream(dead_letters.stream_config(replicas)),
    )
    existing = info.config
    if existing.get("num_replicas", 1) < replicas:
        try:
            return (await api.update_stream(existing | {"num_replicas": replicas})).config
        except (ApiError, PermissionDenied) as error:
            # Say, too few nodes are up for more replicas. That must not keep the worker from its jobs.
            logger.warning(
                "%s keeps fewer replicas than the streams of its jobs: %s", dead_letters.STREAM, error
            )

    return existing


async def _set_up_consumer(api: JetStreamApi, defn: JobDef[Any], stream: dict[str, Any]) -> Info:
    info = await existing_or_made(
        lambda: api.consumer(defn.stream, defn.consumer),
        lambda: api.create_consumer(defn.stream, default_consumer(defn, stream)),
    )
    existing = info.config
    check_usable(defn, existing)
    if not delays.filters_of(existing):
        # Who gives a stream room for schedules looks for consumers afterwards: one of us sees the other.
        stream = (await api.stream(defn.stream)).config

    asked = asked_of_consumer(defn)
    unasked = _lifted_limits(defn, asked, existing) | kept_clear(defn, asked, stream, existing)
    changes = merged(unasked, asked.changes(existing))
    _warn_of_a_shorter_lease(defn, changes, existing)
    return await reconciled(
        defn, "consumer", asked, changes, info, lambda config: api.update_consumer(defn.stream, config)
    )


def _shortened_duplicate_window(
    asked: Asked, changes: dict[str, Any], existing: dict[str, Any]
) -> dict[str, Any]:
    """The window cannot be longer than `max_age`. When it makes a stream, the server shortens it by itself."""
    max_age, window = changes.get("max_age", 0), existing.get("duplicate_window", 0)
    if "duplicate_window" in asked.fields or not 0 < max_age < window:
        return {}

    return {"duplicate_window": max_age}


def _warn_of_a_shorter_lease(defn: JobDef[Any], changes: dict[str, Any], existing: dict[str, Any]) -> None:
    before, after = existing.get("ack_wait", 0), changes.get("ack_wait")
    if after is not None and after < before and defn.update:
        logger.warning(
            "consumer %s: ack_wait is lowered from %g to %g s; jobs that workers of the longer time are performing "
            "just now may be delivered a second time",
            defn.consumer,
            from_ns(before),
            from_ns(after),
        )


def _lifted_limits(defn: JobDef[Any], asked: Asked, existing: dict[str, Any]) -> dict[str, Any]:
    """Limits that nobody asked for, and with which jobs would be out of reach: those of the Node library, for instance."""
    if not defn.update:
        return {}

    lifted: dict[str, Any] = {}
    needed = defn.num_attempts + SPARE_DELIVERIES
    if "max_deliver" not in asked.fields and 0 < existing.get("max_deliver", 0) < needed:
        lifted["max_deliver"] = needed

    if "max_ack_pending" not in asked.fields and existing.get("max_ack_pending") == _SERVERS_MAX_ACK_PENDING:
        lifted["max_ack_pending"] = UNLIMITED

    return lifted


async def _with_retries(kind: str, name: str, attempt: Callable[[], Awaitable[T]], patience: float) -> T:
    """Make the call, again while the trouble is one that passes, and say what went wrong in our words."""
    try:
        return await retrying(lambda _: attempt(), patience)
    except (ApiError, NoResponders, ConnectionLost, RequestTimeout) as error:
        raise SetupFailed(kind, name, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, NoResponders) or (isinstance(error, ApiError) and not error.err_code):
        return "JetStream does not answer: is it enabled (-js), and has the cluster a leader?"

    return f"{error.reason} ({error.err_code})" if isinstance(error, ApiError) else str(error)
