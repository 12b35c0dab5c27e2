"""Acts at random, from a seed: kills, pauses, restarts. Every fault is one method, and is noted."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import anyio

from nats_jobs.server import Server
from support.worker import Ledger, WorkerProcess, worker_process

__all__ = ("Fleet", "Nemesis")


class Fleet:
    """The worker processes, always as many as were asked for."""

    def __init__(self, url: str, stream: str, ledger: Ledger, size: int, **options: Any) -> None:
        self._start = partial(worker_process, url, stream, ledger, **options)
        self._size = size
        self._stack = ExitStack()
        self.workers: list[WorkerProcess] = []
        self.failed: list[int] = []

    def __enter__(self) -> Self:
        for _ in range(self._size):
            self.hire()

        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def hire(self) -> None:
        self.workers.append(self._stack.enter_context(self._start()))

    async def dismiss(self, worker: WorkerProcess, number: int, *, limit: float = 60.0) -> None:
        """Send a signal, wait for the end, hire another."""
        worker.signal(number)
        code = await worker.wait(limit)
        if code not in (0, -signal.SIGKILL):
            self.failed.append(code)

        self.workers.remove(worker)

    async def close(self) -> None:
        """A rolling stop of all."""
        for worker in list(self.workers):
            await self.dismiss(worker, signal.SIGTERM)


class Nemesis:
    """Does one thing after the other until cancelled. The same seed does the same things in the same order."""

    def __init__(
        self, seed: int, fleet: Fleet, server: Server | None, *, ack_wait: float, pause: float
    ) -> None:
        self.done: Counter[str] = Counter()
        self.outages: list[tuple[float, float]] = []
        self._rng = random.Random(seed)
        self._fleet = fleet
        self._server = server
        self._ack_wait = ack_wait
        self._pause = pause
        self._faults: list[Callable[[], Any]] = [self.kill_worker, self.pause_worker, self.replace_worker]
        if server is not None:
            self._faults.append(self.kill_server)

    async def run(self) -> None:
        while True:
            await anyio.sleep(self._rng.uniform(0.5, 1.5) * self._pause)
            fault = self._rng.choice(self._faults)
            self.done[fault.__name__] += 1
            await fault()

    async def kill_worker(self) -> None:
        await self._fleet.dismiss(self._rng.choice(self._fleet.workers), signal.SIGKILL)
        self._fleet.hire()

    async def replace_worker(self) -> None:
        """A deploy: the new one comes before the old one goes."""
        worker = self._rng.choice(self._fleet.workers)
        self._fleet.hire()
        await self._fleet.dismiss(worker, signal.SIGTERM)

    async def pause_worker(self) -> None:
        """Longer than `ack_wait`: its jobs are delivered to others meanwhile, and it cannot know."""
        worker = self._rng.choice(self._fleet.workers)
        worker.signal(signal.SIGSTOP)
        try:
            await anyio.sleep(self._ack_wait * self._rng.uniform(1.1, 2.0))
        finally:
            worker.signal(signal.SIGCONT)

    async def kill_server(self) -> None:
        assert self._server is not None
        killed = time.monotonic()
        self._server.kill()
        await self._server.wait_exited()
        await anyio.sleep(self._rng.uniform(0, self._ack_wait))
        await self._server.restart()
        self.outages.append((killed, time.monotonic()))
