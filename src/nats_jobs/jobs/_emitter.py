"""Hands events to whoever listens. A listener that fails is logged and never reaches a job."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ..events import Event

__all__ = ("Emitter", "logger")

logger = logging.getLogger("nats_jobs")

_BUFFER = 4096


class Emitter:
    """Events go to the callback, to every open stream, and to the logger `nats_jobs` at DEBUG."""

    def __init__(self, on_event: Callable[[Event], object] | None = None) -> None:
        self._on_event = on_event
        # How many events each open stream has missed.
        self._streams: dict[MemoryObjectSendStream[Event], int] = {}
        if os.environ.get("NATS_JOBS_DEBUG", "0") not in ("", "0"):
            _log_to_stderr()

    @property
    def wanted(self) -> bool:
        """Whether anybody listens. An event that nobody wants need not be made."""
        return self._on_event is not None or bool(self._streams) or logger.isEnabledFor(logging.DEBUG)

    def emit(self, event: Event) -> None:
        """Tell everybody, without waiting for anyone."""
        logger.debug("%s", event)
        for stream in self._streams:
            try:
                stream.send_nowait(event)
            except anyio.WouldBlock:
                self._missed(stream, event)
            except anyio.BrokenResourceError:
                pass  # its reader is just leaving

        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("on_event failed for %s", event)

    def _missed(self, stream: MemoryObjectSendStream[Event], event: Event) -> None:
        """Warn of the 1st, the 10th, the 100th ...: a line for each would be one more flood."""
        missed = self._streams[stream] = self._streams[stream] + 1
        if str(missed).strip("0") == "1":
            logger.warning(
                "a reader of events is too slow, %s is lost to it (%d so far)", type(event).__name__, missed
            )

    @asynccontextmanager
    async def events(self) -> AsyncIterator[MemoryObjectReceiveStream[Event]]:
        """Open a stream of the events from now on. It buffers 4096; a reader that is slower loses the newest."""
        send, receive = anyio.create_memory_object_stream[Event](_BUFFER)
        self._streams[send] = 0
        try:
            with receive:
                yield receive
        finally:
            self._streams.pop(send, None)
            send.close()

    def close(self) -> None:
        """Let every stream end after what it holds."""
        streams, self._streams = self._streams, {}
        for stream in streams:
            stream.close()


def _log_to_stderr() -> None:
    """What NATS_JOBS_DEBUG=1 asks for. Handlers that the program has set up itself stay as they are."""
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
