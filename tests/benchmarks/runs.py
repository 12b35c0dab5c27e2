"""What one measurement is: a run, done by one process of its own, and what came out of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

__all__ = ("INVALID", "Backend", "Order", "Run", "Side", "answer", "asked")

Side: TypeAlias = Literal["works", "reference", "bare"]
"""The module that does it: nats-jobs, raw nats-py, or two round trips by hand on `nats_jobs.wire`."""

Backend: TypeAlias = Literal["asyncio", "uvloop", "trio"]

INVALID = "invalid"
"""The key, among the figures of a run, of why they do not count."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measurement. Equal runs of one round are the same run and done once."""

    side: Side
    kind: str
    backend: Backend = "asyncio"
    storage: Literal["file", "memory"] = "file"
    payload: int = 100
    n: int = 0
    concurrency: int = 1
    sleep: float = 0.0
    definitions: int = 1
    busy: int = 1
    processes: int = 1
    labelled: bool = True
    seconds: float = 0.0

    @property
    def fills(self) -> bool:
        """Whether the jobs are queued before the process starts."""
        return self.kind in ("drain", "fleet", "memory", "startup")

    @property
    def label(self) -> str:
        name = {"works": "nats-jobs", "reference": "nats-py", "bare": "by hand"}[self.side]
        return f"{name} {self.kind} {self.backend} {self.storage} {self.payload} B"


@dataclass(frozen=True, kw_only=True)
class Order:
    """A run, and where it is to be done. `spawned_at` is on the machine's monotonic clock."""

    run: Run
    url: str
    streams: tuple[str, ...]
    spawned_at: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def asked() -> Order:
    """Return what this process was started for."""
    fields = json.loads(sys.argv[1])
    run = Run(**fields.pop("run"))
    return Order(
        run=run, url=fields["url"], streams=tuple(fields["streams"]), spawned_at=fields["spawned_at"]
    )


def answer(figures: Mapping[str, Any]) -> None:
    """Hand the figures to whoever started this process."""
    sys.stdout.write(json.dumps(figures) + "\n")
