"""Whoever wants to know how the link fares implements this."""

from __future__ import annotations

from typing import Protocol

__all__ = ("ConnectionListener", "NullListener")


class ConnectionListener(Protocol):
    """Told about the link, in the connection's tasks; must return at once and not raise.

    What it raises all the same ends the connection and comes out of `connect`, as every bug does.
    """

    def on_connected(self, server: str, reconnects: int) -> None:
        """The link to `server` is up; `reconnects` is 0 the first time."""

    def on_disconnected(self, server: str, reason: str) -> None:
        """The link to `server` broke, or was left for another server's."""

    def on_server_error(self, server: str, reason: str) -> None:
        """The server said `-ERR`. Whether the link survives it, `on_disconnected` tells."""

    def on_loop_blocked(self, seconds: float) -> None:
        """The event loop did not run for so long."""


class NullListener:
    """For those who do not want to know."""

    def on_connected(self, server: str, reconnects: int) -> None:
        pass

    def on_disconnected(self, server: str, reason: str) -> None:
        pass

    def on_server_error(self, server: str, reason: str) -> None:
        pass

    def on_loop_blocked(self, seconds: float) -> None:
        pass
