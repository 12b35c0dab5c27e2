"""Whoever wants to know how the link fares implements this."""

from __future__ import annotations

from typing import Protocol

__all__ = ("LinkWatcher", "SilentWatcher")


class LinkWatcher(Protocol):
    """Told about the link, in the connection's tasks; must return at once and not raise.

    What it raises all the same ends the connection and comes out of `connect`, as every bug does.
    """

    def link_up(self, server: str, reconnects: int) -> None:
        """The link to `server` is up; `reconnects` is 0 the first time."""

    def link_down(self, server: str, why: str) -> None:
        """The link to `server` broke, or was left for another server's."""

    def server_error(self, server: str, text: str) -> None:
        """The server said `-ERR`. Whether the link survives it, `link_down` tells."""

    def loop_held(self, seconds: float) -> None:
        """The event loop did not run for so long."""


class SilentWatcher:
    """For those who do not want to know."""

    def link_up(self, server: str, reconnects: int) -> None:
        pass

    def link_down(self, server: str, why: str) -> None:
        pass

    def server_error(self, server: str, text: str) -> None:
        pass

    def loop_held(self, seconds: float) -> None:
        pass
