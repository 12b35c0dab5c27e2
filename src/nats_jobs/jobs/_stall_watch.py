"""Free slots and an open intake imply a request at the server, or work that starts. Else it is mended, or an error."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from ..errors import WorkerStalled
from ._emitter import logger

__all__ = ("StallWatch",)

_CHECK_INTERVAL = 1.0
# Checks that may find the worker standing, one right after the other.
_MAX_STRIKES = 5


class StallWatch:
    """Looks at one worker from time to time.

    Args:
        standing: returns a text that says how the worker stands there with nothing to wait for; None when it does not.
        nudge: has the worker look for work, and ask for more.
    """

    def __init__(
        self, stream: str, consumer: str, standing: Callable[[], str | None], nudge: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._consumer = consumer
        self._standing = standing
        self._nudge = nudge
        self._strikes = 0

    async def run(self) -> None:
        """Look until cancelled.

        Raises:
            WorkerStalled: the worker stands still, and nudging it does not help.
        """
        while True:
            await anyio.sleep(_CHECK_INTERVAL)
            self.check()

    def check(self) -> None:
        """Look once. A worker may stand for a moment, as when a slot has been woken and has not had its turn."""
        state = self._standing()
        if state is None:
            self._strikes = 0
            return

        self._strikes += 1
        if self._strikes > _MAX_STRIKES:
            raise WorkerStalled(self._stream, self._consumer, state)

        if self._strikes > 1:
            logger.warning("worker on %s/%s makes no progress: %s", self._stream, self._consumer, state)

        self._nudge()
