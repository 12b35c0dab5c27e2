"""Acts at random, from a seed. What it can do is elsewhere: `worker_faults`, `server_faults`, `link_faults`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import anyio

__all__ = ("Fault", "Nemesis")


class Fault(Protocol):
    """Does harm, and has made it good when it returns. Its name is what the report calls it."""

    __name__: str

    async def __call__(self, rng: random.Random, /) -> None: ...


class Nemesis:
    """Does one thing after the other until it is told that it is enough.

    The same seed does the same things in the same order; when, and to how many jobs, is up to the machine.

    Args:
        pause: seconds between two faults, half as long or half as long again.
    """

    def __init__(self, seed: str, faults: Sequence[Fault], pause: float) -> None:
        self.done: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._faults = faults
        self._pause = pause
        self._enough = anyio.Event()

    async def run(self) -> None:
        """Ends after the fault at hand, so that nothing stays broken."""
        while not await self._told_within(self._rng.uniform(0.5, 1.5) * self._pause):
            fault = self._rng.choice(self._faults)
            self.done[fault.__name__] += 1
            await fault(self._rng)

    def enough(self) -> None:
        self._enough.set()

    async def _told_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._enough.wait()

        return self._enough.is_set()
