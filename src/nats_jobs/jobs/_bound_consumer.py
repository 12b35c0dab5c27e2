"""The consumer that a worker is bound to, as the server has it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from nats.js.api import ConsumerConfig

from ..errors import ConfigMismatch, Difference
from ..jetstream import Info
from ..units import from_ns
from ._definition import JobDef
from ._limits import Limits

__all__ = ("BoundConsumer", "check_usable", "token_of")

_TOKEN_LENGTH = 12


@dataclass(frozen=True, slots=True)
class BoundConsumer:
    """Where a worker's jobs come from: the server's own settings."""

    stream: str
    name: str
    created: str
    """When the consumer was created: one of the same name that is created later has another."""

    token: str
    """A part of a subject that no other consumer has, also one of the same name in another JetStream domain."""

    ack_wait: float
    limits: Limits
    config: ConsumerConfig

    @classmethod
    def of(cls, defn: JobDef[Any], info: Info, max_age: float) -> BoundConsumer:
        """Return what CONSUMER.INFO says. `max_age` is the stream's, in seconds.

        Raises:
            ConfigMismatch: jobs cannot be pulled from this consumer.
        """
        config = info.config
        check_usable(defn, config)
        return cls(
            stream=defn.stream,
            name=defn.consumer,
            created=info.created,
            token=token_of(info),
            ack_wait=from_ns(config["ack_wait"]),
            limits=Limits(defn.num_attempts, max(0, config.get("max_deliver", 0)), max_age),
            config=ConsumerConfig.from_response(dict(config)),
        )


def token_of(consumer: Info) -> str:
    """Return a word that tells a consumer from all others, also of its name: it is not secret."""
    return sha256(consumer.created.encode()).hexdigest()[:_TOKEN_LENGTH]


def check_usable(defn: JobDef[Any], existing: dict[str, Any]) -> None:
    """Refuse a consumer that jobs cannot be pulled from, whatever the definition says."""
    problems = [
        Difference(field, ours, existing.get(field))
        for field, ours in (("ack_policy", "explicit"), ("deliver_subject", None), ("backoff", None))
        if (existing.get(field) or None) != ours
    ]
    if problems:
        raise ConfigMismatch("consumer", defn.consumer, tuple(problems), "jobs cannot be pulled from it")
