"""How a worker is told to stop: once, from anywhere, with a grace for its jobs that can only become shorter."""

from __future__ import annotations

import math
from typing import Any

import anyio

from ..errors import UsageError
from ._reasons import CancelReason

__all__ = ("Shutdown", "check_grace")


class Shutdown:
    """Whether a worker was told to stop, and until when its jobs may go on.

    Attributes:
        requested: set for good once it was told, or has ended without.
        setting_up: a scope for what nobody waits for once it has been told.
        grace_ends: on the event loop's clock.
    """

    def __init__(self, grace: float) -> None:
        self.requested = anyio.Event()
        self.setting_up = anyio.CancelScope()
        self.grace_ends = math.inf
        self._usual_grace = grace
        self._grace_scope: anyio.CancelScope | None = None

    def request(self, grace: float | None = None) -> None:
        """Tell it. A later call can only shorten the grace.

        Raises:
            UsageError: the grace is not a number of seconds, 0 or more.
        """
        check_grace("grace", grace)
        ends = anyio.current_time() + (self._usual_grace if grace is None else grace)
        self.grace_ends = min(self.grace_ends, ends)
        if self._grace_scope is not None:
            self._grace_scope.deadline = self.grace_ends

        self.requested.set()
        self.setting_up.cancel(CancelReason.STOP.text)

    def grace(self) -> anyio.CancelScope:
        """Return a scope that is cancelled when the grace ends, also when that is moved."""
        self._grace_scope = anyio.CancelScope(deadline=self.grace_ends)
        return self._grace_scope


def check_grace(name: str, grace: Any) -> None:
    """Refuse what is neither None nor a number of seconds, 0 or more."""
    if grace is not None and (
        isinstance(grace, bool) or not isinstance(grace, int | float) or not grace >= 0
    ):
        raise UsageError(f"{name} is {grace!r}; seconds, 0 or more, are needed (math.inf waits for ever)")
