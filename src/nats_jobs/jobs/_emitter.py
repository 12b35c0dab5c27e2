"""Hands events to their listeners. A listener that fails is logged and never reaches a job."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from ..events import Event
from ._event_stream import EventStream

__all__ = ("Emitter", "logger")

logger = logging.getLogger("nats_jobs")


class Emitter:
    """Events go to the callback, to every open stream, and to the logger `nats_jobs` at DEBUG."""

    def __init__(self, on_event: Callable[[Event], object] | None = None) -> None:
        self._on_event = on_event
        self._streams: list[EventStream] = []
        if os.environ.get("NATS_JOBS_DEBUG", "0") not in ("", "0"):
            _log_to_stderr()

    @property
    def wanted(self) -> bool:
        """Whether anybody listens. An event that nobody wants need not be made."""
        return self._on_event is not None or bool(self._streams) or logger.isEnabledFor(logging.DEBUG)

    def emit(self, event: Event) -> None:
        """Tell everybody, without waiting for anyone."""
        for stream in self._streams:
            stream.offer(event)

        if logger.isEnabledFor(logging.DEBUG):
            _guarded("a log handler", partial(logger.debug, "%s", event), event)

        if self._on_event is not None:
            _guarded("on_event", partial(self._on_event, event), event)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[EventStream]:
        """Open a stream of the events from now on."""
        stream = EventStream()
        self._streams.append(stream)
        try:
            yield stream
        finally:
            if stream in self._streams:
                self._streams.remove(stream)

            stream.end()

    def close(self) -> None:
        """Let every stream end after what it holds."""
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.end()


def _guarded(what: str, call: Callable[[], object], event: Event) -> None:
    """Call a function of the user's. Whatever it raises is logged: it must not be a job's fault, nor end a worker."""
    try:
        call()
    except KeyboardInterrupt:
        raise
    except BaseException:
        # The event itself is not told here: its text may be what failed.
        with suppress(Exception):
            logger.exception("%s failed for %s", what, type(event).__qualname__)


def _log_to_stderr() -> None:
    """What NATS_JOBS_DEBUG=1 asks for. Handlers that the program has set up itself stay as they are."""
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
