"""What a stream and a consumer are made with: the Node library's settings, then the definition's."""

from __future__ import annotations

from typing import Any

from ..units import to_ns
from ._config_drift import Asked, merged
from ._definition import JobDef
from ._keeping_clear import filter_of_jobs
from ._limits import SPARE_DELIVERIES

__all__ = ("UNLIMITED", "asked_of_consumer", "default_consumer", "default_stream")

UNLIMITED = -1

_WEEK = 7 * 24 * 3600
_ACK_WAIT = 10.0


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
    config = defaults | Asked(defn.stream_config, defn.consumer).to_create
    if "mirror" in config:
        # A mirror has no subjects of its own.
        del config["subjects"]

    return config


def default_consumer(defn: JobDef[Any], stream: dict[str, Any]) -> dict[str, Any]:
    """Return what a consumer is made with: the Node library's settings but for two, then the definition's.

    `max_deliver` is the cap for crash loops. `max_ack_pending` would count jobs that only wait: a thousand that are
    delayed, or back off, would keep every other from being delivered. How much is delivered is bounded by demand.

    Args:
        stream: its configuration. When it takes schedules, they are kept out by a filter.
    """
    defaults = {
        "durable_name": defn.consumer,
        "ack_policy": "explicit",
        "ack_wait": to_ns(_ACK_WAIT),
        "deliver_policy": "all",
        "replay_policy": "instant",
        "max_deliver": defn.num_attempts + SPARE_DELIVERIES,
        "max_ack_pending": UNLIMITED,
    }
    asked = asked_of_consumer(defn)
    return merged(defaults | filter_of_jobs(asked, stream), asked.to_create)


def asked_of_consumer(defn: JobDef[Any]) -> Asked:
    """Return what the definition says about its consumer."""
    more = {} if defn.filter_subject is None else {"filter_subject": defn.filter_subject}
    return Asked(defn.consumer_config, defn.consumer, more)
