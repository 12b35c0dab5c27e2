"""The worker processes of a run: always as many as were asked for, each at the end of a link."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Self

from support.worker import Ledger, WorkerProcess, worker_process

__all__ = ("Fleet",)

# Seconds in which a worker must have ended that was told to stop: its grace, what it has to settle and the
# link each have a limit of a few seconds, and the machine may be slow. One that takes longer hangs.
STOP_LIMIT = 60.0


class Fleet:
    """Hires and dismisses.

    Args:
        routes: the URLs that a worker is given; the next worker gets the next ones.
    """

    def __init__(self, routes: Iterable[str], stream: str, ledger: Ledger, size: int, **options: Any) -> None:
        self._routes = itertools.cycle(routes)
        self._options = {"stream": stream, "ledger": ledger, **options}
        self._size = size
        self._stack = ExitStack()
        self.workers: list[WorkerProcess] = []
        self.failed: list[int] = []
        self.longest_stop = 0.0

    def __enter__(self) -> Self:
        for _ in range(self._size):
            self.hire()

        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def hire(self) -> None:
        self.workers.append(self._stack.enter_context(worker_process(next(self._routes), **self._options)))

    async def kill(self, worker: WorkerProcess) -> None:
        await self._dismiss(worker, signal.SIGKILL)

    async def stop(self, worker: WorkerProcess) -> None:
        began = time.monotonic()
        await self._dismiss(worker, signal.SIGTERM)
        self.longest_stop = max(self.longest_stop, time.monotonic() - began)

    async def close(self) -> None:
        """A rolling stop of all."""
        for worker in list(self.workers):
            await self.stop(worker)

    async def _dismiss(self, worker: WorkerProcess, number: int) -> None:
        """Send a signal and wait for the end."""
        worker.signal(number)
        code = await worker.wait(STOP_LIMIT)
        # One that has just been hired does not listen yet, and ends by the signal itself.
        if code not in (0, -number):
            self.failed.append(code)

        self.workers.remove(worker)
