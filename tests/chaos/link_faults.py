"""What happens to the links between workers, producers and servers: cut, lost, held up, slow."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio

from support.proxy import Proxy

from .checker import Period
from .nemesis import Fault

__all__ = ("LinkFaults",)

# Bytes per second, each way: some hundred jobs.
_SLOWEST, _SLOW = 5_000, 50_000


class LinkFaults:
    """One link at a time; whoever has others may go there. `held_up` is for the checker: what was late, and when."""

    def __init__(self, links: Sequence[Proxy], ack_wait: float) -> None:
        self.held_up: list[Period] = []
        self._links = links
        self._ack_wait = ack_wait

    def all(self) -> list[Fault]:
        return [self.cut_link, self.partition, self.hold_up_link, self.slow_link]

    async def cut_link(self, rng: random.Random) -> None:
        """It is reset, and can be had again at once."""
        rng.choice(self._links).cut()

    async def partition(self, rng: random.Random) -> None:
        """For longer than `ack_wait` all that is sent disappears, each way; then the link is found to be dead."""
        with self._spoilt(rng, late=False) as link:
            link.swallow()
            await anyio.sleep(self._longer_than_a_lease(rng))
            link.cut()

    async def hold_up_link(self, rng: random.Random) -> None:
        """For longer than `ack_wait` nothing arrives; then all of it does, out of date as it is."""
        with self._spoilt(rng) as link:
            link.stall()
            await anyio.sleep(self._longer_than_a_lease(rng))

    async def slow_link(self, rng: random.Random) -> None:
        with self._spoilt(rng) as link:
            link.slow(rng.uniform(_SLOWEST, _SLOW))
            await anyio.sleep(self._longer_than_a_lease(rng))

    @contextmanager
    def _spoilt(self, rng: random.Random, *, late: bool = True) -> Iterator[Proxy]:
        link = rng.choice(self._links)
        began = time.monotonic()
        try:
            yield link
        finally:
            link.restore()
            if late:
                self.held_up.append(Period(began, time.monotonic()))

    def _longer_than_a_lease(self, rng: random.Random) -> float:
        return self._ack_wait * rng.uniform(1.1, 2.0)
