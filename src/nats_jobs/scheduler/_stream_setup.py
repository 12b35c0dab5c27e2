"""What a stream needs so that records can be kept in it beside its jobs, and whether it may be given that."""

from __future__ import annotations

from typing import Any

from .. import delays
from ..errors import ApiError
from ..jetstream import JetStreamApi, changing, is_retryable
from ..jobs import logger

__all__ = ("give_records",)

# Besides what delayed jobs need: a new record takes the place of the one before.
_FLAGS = ("allow_atomic", "allow_msg_ttl", "allow_rollup_hdrs")
_UNLIMITED = -1


async def give_records(api: JetStreamApi, name: str, config: dict[str, Any]) -> bool:
    """Prepare a stream for records of schedules, if it can have them; return whether it has.

    It cannot when a consumer that is not ours would be handed the records as jobs.
    """
    if await api.level() < delays.MIN_API_LEVEL or not delays.may_have_schedules(config):
        return False

    consumers = await api.consumers(name)
    covering = [consumer for consumer in consumers if delays.covers_schedules(consumer, name)]
    if not all(_is_ours(consumer) for consumer in covering):
        return False

    if not _has_records(config):
        try:
            config = await _given_room(api, name)
        except ApiError as error:
            if is_retryable(error):
                raise

            logger.warning("stream %s cannot be given room for schedules: %s", name, error)
            return False

    # The leader may be older than the server that we are connected to, and drop the flags.
    if not _has_records(config):
        return False

    for consumer in covering:
        await _limit_to_jobs(api, config, consumer)

    return True


async def _given_room(api: JetStreamApi, name: str) -> dict[str, Any]:
    async with changing(api, name):
        config = (await api.stream(name)).config
        return config if _has_records(config) else (await api.update_stream(_with_records(config))).config


def _with_records(config: dict[str, Any]) -> dict[str, Any]:
    return delays.with_schedules(config) | dict.fromkeys(_FLAGS, True)


def _has_records(config: dict[str, Any]) -> bool:
    return delays.has_schedules(config) and all(map(config.get, _FLAGS))


def _is_ours(consumer: dict[str, Any]) -> bool:
    """Whether a worker of this library has set it up: it lifts this limit, and does not take a filter away later."""
    return not delays.filters_of(consumer) and consumer.get("max_ack_pending") == _UNLIMITED


async def _limit_to_jobs(api: JetStreamApi, stream: dict[str, Any], consumer: dict[str, Any]) -> None:
    ours = delays.filter_of_jobs(stream)
    metadata = (consumer.get("metadata") or {}) | ours["metadata"]
    await api.update_consumer(stream["name"], consumer | ours | {"metadata": metadata})
