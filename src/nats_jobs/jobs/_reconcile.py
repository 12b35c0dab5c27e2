"""Between what a definition asks for and what is on the server: make it, leave it, or change it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import ApiError, ConfigMismatch
from ..jetstream import ErrorCode, Info, is_retryable
from ._config_drift import Asked, listed, merged
from ._definition import JobDef
from ._emitter import logger

__all__ = ("existing_or_made", "reconciled")

_EXISTS = (
    ErrorCode.STREAM_NAME_IN_USE,
    ErrorCode.SUBJECTS_OVERLAP,
    ErrorCode.CONSUMER_EXISTS,
    ErrorCode.CONSUMER_NAME_IN_USE,
)
_MISSING = (ErrorCode.STREAM_NOT_FOUND, ErrorCode.CONSUMER_NOT_FOUND)


async def existing_or_made(look: Callable[[], Awaitable[Info]], make: Callable[[], Awaitable[Info]]) -> Info:
    """Return what is there, or was made since nothing was."""
    try:
        return await look()
    except ApiError as error:
        if error.err_code not in _MISSING:
            raise

    try:
        return await make()
    except ApiError as error:
        if error.err_code not in _EXISTS:
            raise

        refusal = error

    # Another worker was quicker; or the subjects belong to another stream, then the refusal says so.
    try:
        return await look()
    except ApiError as error:
        raise refusal if error.err_code in _MISSING else error from None


async def reconciled(
    defn: JobDef[Any],
    kind: str,
    asked: Asked,
    changes: dict[str, Any],
    info: Info,
    update: Callable[[dict[str, Any]], Awaitable[Info]],
) -> Info:
    """Return the stream or consumer after `changes`: whether it can be changed is for the server to say."""
    name = defn.stream if kind == "stream" else defn.consumer
    existing = info.config
    visible = asked.without_record(changes)
    if visible and not defn.update:
        raise ConfigMismatch(kind, name, listed(visible, existing), "update=False forbids changing it")

    if not changes or not defn.update:
        return info

    try:
        updated = await update(merged(existing, changes))
    except ApiError as error:
        if is_retryable(error):
            raise

        if not visible:
            # Say, an account that may bind and not change.
            return info

        refusal = f"the server refuses to change it: {error.reason} ({error.err_code})"
        raise ConfigMismatch(kind, name, listed(visible, existing), refusal) from error

    _announce(kind, name, existing, visible)
    if left := asked.without_record(asked.changes(updated.config)):
        logger.warning(
            "%s %s: the server accepted the change of %s, but did not make it", kind, name, ", ".join(left)
        )

    return updated


def _announce(kind: str, name: str, existing: dict[str, Any], changes: dict[str, Any]) -> None:
    """Others may share it, and would wonder."""
    shown = ", ".join(
        f"{field} from {existing.get(field)!r} to {value!r}" for field, value in changes.items()
    )
    if shown:
        logger.info("%s %s was changed: %s", kind, name, shown)
