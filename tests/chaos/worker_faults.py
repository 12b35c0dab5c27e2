"""What happens to workers: they are killed, paused, replaced, and their wall clock jumps."""

from __future__ import annotations

import random
import signal

import anyio

from support.wall_clock import WallClock

from .fleet import Fleet
from .nemesis import Fault

__all__ = ("WorkerFaults",)

_DAY = 86400.0


class WorkerFaults:
    """One at a time, so that most of the fleet is always well."""

    def __init__(self, fleet: Fleet, clock: WallClock, ack_wait: float) -> None:
        self._fleet = fleet
        self._clock = clock
        self._ack_wait = ack_wait

    def all(self) -> list[Fault]:
        return [self.kill_worker, self.pause_worker, self.replace_worker, self.jump_wall_clock]

    async def kill_worker(self, rng: random.Random) -> None:
        await self._fleet.kill(rng.choice(self._fleet.workers))
        self._fleet.hire()

    async def replace_worker(self, rng: random.Random) -> None:
        """A deploy: the new one comes before the old one goes."""
        worker = rng.choice(self._fleet.workers)
        self._fleet.hire()
        await self._fleet.stop(worker)

    async def pause_worker(self, rng: random.Random) -> None:
        """Longer than `ack_wait`: its jobs are delivered to others meanwhile, and it cannot know."""
        worker = rng.choice(self._fleet.workers)
        worker.signal(signal.SIGSTOP)
        try:
            await anyio.sleep(self._ack_wait * rng.uniform(1.1, 2.0))
        finally:
            worker.signal(signal.SIGCONT)

    async def jump_wall_clock(self, rng: random.Random) -> None:
        """By up to two days, back or forth. Nothing at all may come of it."""
        self._clock.jump_to(rng.uniform(-2 * _DAY, 2 * _DAY))
