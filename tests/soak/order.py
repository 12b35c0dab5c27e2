"""What one soak is, for the process that drives it and for the worker's."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

__all__ = ("BACKENDS", "NUM_ATTEMPTS", "SAMPLE", "Soak")

BACKENDS = ("asyncio", "uvloop", "trio")
NUM_ATTEMPTS = 2
SAMPLE = "soak.sample"
"""The subject on which the worker is asked what it consists of just now."""


@dataclass(frozen=True, kw_only=True)
class Soak:
    """`jobs` do nothing; `failing` fail until they are dead letters, spread evenly among the others."""

    jobs: int
    failing: int
    backend: str
    samples: int = 20
    concurrency: int = 100
    stream: str = "SOAK"

    @property
    def total(self) -> int:
        return self.jobs + self.failing

    def payloads(self, first: int, count: int) -> list[int]:
        """Return what the next jobs carry: their numbers from 1 on, below zero for those that fail."""
        numbers = range(first + 1, min(first + count, self.total) + 1)
        return [-number if self._fails(number) else number for number in numbers]

    def _fails(self, number: int) -> bool:
        return number * self.failing // self.total > (number - 1) * self.failing // self.total

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Soak:
        return cls(**json.loads(text))
