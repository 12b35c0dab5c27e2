"""Whether the server can keep a delayed job until its time: asked of the stream, and remembered for a while."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import anyio

from .._untrusted import field_of
from ..errors import ApiError, PermissionDenied
from ..jetstream import ErrorCode, JetStreamApi, retrying
from ..units import from_ns
from ._stream import covers_schedules, has_schedules

__all__ = ("Home", "Homes")

logger = logging.getLogger("nats_jobs")

# Seconds. A consumer that would hand out schedules may be made at any time, and a stream be given schedules.
_REMEMBERED_FOR = 30.0
_MAX_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Home:
    """The stream of a delayed job."""

    stream: str
    keeps_schedules: bool
    """Whether it takes schedules, and no consumer would be handed them."""

    has_ttl: bool
    takes_batches: bool
    """Whether messages can be stored there all or none."""

    max_age: float
    """Seconds; 0 when messages do not grow too old."""

    def outlasts(self, wait: float) -> bool:
        """Whether a job that waits so many seconds is still there then."""
        return not self.max_age or wait < self.max_age or (self.keeps_schedules and self.has_ttl)


class Homes:
    """Finds the home of a delayed job.

    Args:
        timeout: seconds for which the server is asked again while it cannot answer.
    """

    def __init__(self, api: JetStreamApi, *, timeout: float) -> None:
        self._api = api
        self._timeout = timeout
        self._known: dict[tuple[str | None, str], tuple[float, Home | None]] = {}

    async def of(self, stream: str | None, subject: str) -> Home | None:
        """Return the home of a job on `subject`; None when there is no such stream, or we may not look at it.

        Raises:
            NatsJobsError: the server could not answer in time.
        """
        key = (stream, subject)
        now = anyio.current_time()
        asked_at, home = self._known.get(key, (-_REMEMBERED_FOR, None))
        if now - asked_at < _REMEMBERED_FOR:
            return home

        try:
            home = await retrying(lambda _: self._found(stream, subject), self._timeout)
        except PermissionDenied as error:
            logger.info("delayed jobs on %s wait with their workers, not at the server: %s", subject, error)
            home = None
        except ApiError as error:
            if error.err_code != ErrorCode.STREAM_NOT_FOUND:
                raise

            return None

        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()

        self._known[key] = now, home
        return home

    def forget(self) -> None:
        """Look again the next time: something is not as it was."""
        self._known.clear()

    async def _found(self, stream: str | None, subject: str) -> Home | None:
        name = stream or await self._stream_of(subject)
        if name is None:
            return None

        config = (await self._api.stream(name)).config
        return Home(
            stream=name,
            keeps_schedules=has_schedules(config) and not await self._is_covered(name),
            has_ttl=config.get("allow_msg_ttl") is True,
            takes_batches=config.get("allow_atomic") is True,
            max_age=from_ns(field_of(config, "max_age", int, "the configuration of a stream", 0)),
        )

    async def _stream_of(self, subject: str) -> str | None:
        call = "STREAM.NAMES"
        names: list[Any] = field_of(
            await self._api.request(call, {"subject": subject}), "streams", list, call, []
        )
        return str(names[0]) if len(names) == 1 else None

    async def _is_covered(self, stream: str) -> bool:
        for config in await self._api.consumers(stream):
            if covers_schedules(config, stream):
                logger.warning(
                    "consumer %s of stream %s has no filter that leaves out schedules, so delayed jobs wait with their workers",
                    config.get("durable_name") or config.get("name"),
                    stream,
                )
                return True

        return False
