"""What the connection tells, as events and log lines."""

from __future__ import annotations

from ..events import Connected, Disconnected, ServerError
from ..jobs import Emitter, logger

__all__ = ("LinkEvents",)

# Seconds; what a job does to the loop is told by the job's own event.
_LONG_HOLD = 1.0


class LinkEvents:
    """Turns what the connection tells into events and log lines."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def on_connected(self, server: str, reconnects: int) -> None:
        if reconnects:
            logger.info("connected to %s again", server)

        self._emitter.emit(Connected(server=server, reconnects=reconnects))

    def on_disconnected(self, server: str, reason: str) -> None:
        logger.warning("the connection to %s was lost (%s); reconnecting", server, reason)
        self._emitter.emit(Disconnected(server=server, reason=reason))

    def on_server_error(self, server: str, reason: str) -> None:
        logger.warning("%s reports an error: %s", server, reason)
        self._emitter.emit(ServerError(server=server, reason=reason))

    def on_loop_blocked(self, seconds: float) -> None:
        if seconds < _LONG_HOLD:
            return

        logger.warning("the event loop was blocked for %.1f s; is there a blocking call in a job?", seconds)
