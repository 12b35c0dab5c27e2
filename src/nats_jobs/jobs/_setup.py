"""Makes the stream and the consumer of a definition, or binds to those that are there.

What exists is compared with what the definition asks for in so many words: equal, or only our default
differs: bind. Asked for, and the server can change it: update, unless the definition forbids that. The
rest: `ConfigMismatch`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nats.js.api import ConsumerConfig

from ..errors import (
    ApiError,
    ConfigMismatch,
    ConnectionLost,
    Difference,
    NoResponders,
    RequestTimeout,
    SetupFailed,
)
from ..jetstream import ErrorCode, Info, JetStreamApi, explicit_fields, retrying
from ..units import from_ns, to_ns
from . import _dead_letters
from ._definition import JobDef
from ._drift import changes_to_consumer, changes_to_stream, merged
from ._emitter import logger
from ._limits import SPARE_DELIVERIES, Limits

__all__ = ("Site", "default_consumer", "default_stream", "set_up")

_WEEK = 7 * 24 * 3600
_ACK_WAIT = 10.0

_EXISTS = (
    ErrorCode.STREAM_NAME_IN_USE,
    ErrorCode.SUBJECTS_OVERLAP,
    ErrorCode.CONSUMER_EXISTS,
    ErrorCode.CONSUMER_NAME_IN_USE,
)
_MISSING = (ErrorCode.STREAM_NOT_FOUND, ErrorCode.CONSUMER_NOT_FOUND)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a worker works: the server's own settings."""

    stream: str
    consumer: str
    ack_wait: float
    limits: Limits
    consumer_config: ConsumerConfig


def default_stream(defn: JobDef[Any]) -> dict[str, Any]:
    """Return what a stream is made with: the Node library's settings, then the definition's."""
    defaults: dict[str, Any] = {
        "name": defn.stream,
        "subjects": [defn.stream],
        "retention": "workqueue",
        "storage": "file",
        "discard": "old",
        "max_age": to_ns(_WEEK),
        "num_replicas": 1,
        "deny_delete": False,
        "deny_purge": False,
    }
    config = defaults | explicit_fields(defn.stream_config)
    if "mirror" in config:
        # A mirror has no subjects of its own.
        del config["subjects"]

    return config


def default_consumer(defn: JobDef[Any]) -> dict[str, Any]:
    """Return what a consumer is made with: the Node library's settings but for `max_deliver`, then the definition's."""
    return {
        "durable_name": defn.consumer,
        "ack_policy": "explicit",
        "ack_wait": to_ns(_ACK_WAIT),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "max_deliver": defn.num_attempts + SPARE_DELIVERIES,
    } | _asked_of_consumer(defn)


async def set_up(api: JetStreamApi, defn: JobDef[Any], *, patience: float) -> Site:
    """See to it that stream, consumer and dead-letter stream stand.

    Args:
        patience: seconds for which each is tried while the server cannot answer, as during an election.

    Raises:
        ConfigMismatch: what exists contradicts the definition, and cannot be changed.
        SetupFailed: the server refused, or did not answer in time, with its reason.
    """
    stream = await _with_retries("stream", defn.stream, lambda: _set_up_stream(api, defn), patience)
    if defn.dead_letter:
        # As many as the jobs have: a node that is down must not keep them from being parked.
        replicas = stream.get("num_replicas", 1)
        await _with_retries(
            "stream", _dead_letters.STREAM, lambda: _set_up_dead_letters(api, replicas), patience
        )

    config = await _with_retries("consumer", defn.consumer, lambda: _set_up_consumer(api, defn), patience)
    return Site(
        stream=defn.stream,
        consumer=defn.consumer,
        ack_wait=from_ns(config["ack_wait"]),
        limits=Limits(defn.num_attempts, max(0, config.get("max_deliver", 0))),
        consumer_config=ConsumerConfig.from_response(dict(config)),
    )


async def _set_up_stream(api: JetStreamApi, defn: JobDef[Any]) -> dict[str, Any]:
    existing = await _existing_or_made(
        lambda: api.stream(defn.stream), lambda: api.create_stream(default_stream(defn))
    )
    changes = changes_to_stream(defn, explicit_fields(defn.stream_config), existing)
    if not changes:
        return existing

    _announce("stream", defn.stream, existing, changes)
    return (await api.update_stream(merged(existing, changes))).config


async def _set_up_dead_letters(api: JetStreamApi, replicas: int) -> dict[str, Any]:
    existing = await _existing_or_made(
        lambda: api.stream(_dead_letters.STREAM),
        lambda: api.create_stream(_dead_letters.stream_config(replicas)),
    )
    if existing.get("num_replicas", 1) < replicas:
        try:
            return (await api.update_stream(existing | {"num_replicas": replicas})).config
        except ApiError as error:
            # Say, too few nodes are up for more replicas. That must not keep the worker from its jobs.
            logger.warning("%s stays on fewer nodes than its jobs: %s", _dead_letters.STREAM, error.reason)

    return existing


async def _set_up_consumer(api: JetStreamApi, defn: JobDef[Any]) -> dict[str, Any]:
    existing = await _existing_or_made(
        lambda: api.consumer(defn.stream, defn.consumer),
        lambda: api.create_consumer(defn.stream, default_consumer(defn)),
    )
    _check_usable(defn, existing)
    asked = _asked_of_consumer(defn)
    changes = changes_to_consumer(defn, asked, existing)
    changes |= _raised_max_deliver(defn, asked, existing)
    if not changes:
        return existing

    _announce("consumer", defn.consumer, existing, changes)
    return (await api.update_consumer(defn.stream, merged(existing, changes))).config


async def _existing_or_made(
    look: Callable[[], Awaitable[Info]], make: Callable[[], Awaitable[Info]]
) -> dict[str, Any]:
    """Return the configuration of what is there, or was made since nothing was."""
    try:
        return (await look()).config
    except ApiError as error:
        if error.err_code not in _MISSING:
            raise

    try:
        return (await make()).config
    except ApiError as error:
        if error.err_code not in _EXISTS:
            raise

        refusal = error

    # Another worker was quicker; or the subjects belong to another stream, then the refusal says so.
    try:
        return (await look()).config
    except ApiError as error:
        raise refusal if error.err_code in _MISSING else error from None


def _announce(kind: str, name: str, existing: dict[str, Any], changes: dict[str, Any]) -> None:
    """Others may share it, and would wonder."""
    shown = ", ".join(
        f"{field} from {existing.get(field)!r} to {value!r}" for field, value in changes.items()
    )
    logger.info("%s %s is being changed: %s", kind, name, shown)


def _asked_of_consumer(defn: JobDef[Any]) -> dict[str, Any]:
    asked = explicit_fields(defn.consumer_config)
    asked.pop("name", None)
    if defn.filter_subject is not None:
        asked["filter_subject"] = defn.filter_subject

    return asked


def _raised_max_deliver(defn: JobDef[Any], asked: dict[str, Any], existing: dict[str, Any]) -> dict[str, Any]:
    """A lower limit, such as the Node library's, would leave interrupted jobs in the stream, out of reach."""
    needed = defn.num_attempts + SPARE_DELIVERIES
    if not defn.update or "max_deliver" in asked or not 0 < existing.get("max_deliver", 0) < needed:
        return {}

    return {"max_deliver": needed}


def _check_usable(defn: JobDef[Any], existing: dict[str, Any]) -> None:
    """Refuse a consumer that jobs cannot be pulled from, whatever the definition says."""
    problems = [
        Difference(field, ours, existing.get(field))
        for field, ours in (("ack_policy", "explicit"), ("deliver_subject", None), ("backoff", None))
        if (existing.get(field) or None) != ours
    ]
    if problems:
        raise ConfigMismatch("consumer", defn.consumer, tuple(problems))


async def _with_retries(
    kind: str, name: str, attempt: Callable[[], Awaitable[dict[str, Any]]], patience: float
) -> dict[str, Any]:
    """Make the call, again while the trouble is one that passes, and say what went wrong in our words."""
    try:
        return await retrying(lambda _: attempt(), patience)
    except (ApiError, NoResponders, ConnectionLost, RequestTimeout) as error:
        raise SetupFailed(kind, name, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, NoResponders) or (isinstance(error, ApiError) and not error.err_code):
        return "JetStream does not answer: is it enabled (-js), and has the cluster a leader?"

    return f"{error.reason} ({error.err_code})" if isinstance(error, ApiError) else str(error)
