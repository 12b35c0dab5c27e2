"""The workload: producers that keep what was confirmed, and workers that write down what they do."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import anyio

from nats_jobs import JobProcessor
from nats_jobs.errors import NatsJobsError

__all__ = ("Producers", "job_for", "reason_for")

_PRODUCERS = 3
_MANY = 50
_NEVER = 1000


def job_for(number: int, rng: random.Random, ack_wait: float) -> dict[str, Any]:
    """Return the payload of a job: mostly short, some fail, some are rejected, a few block the event loop."""
    job: dict[str, Any] = {"n": number, "sleep": round(rng.expovariate(1 / 0.01), 4)}
    dice = rng.random()
    if dice < 0.02:
        job["fail_until"] = 2
        # An answer that is late finds the next attempt still at work.
        job["sleep"] += ack_wait * 0.7 * (dice < 0.005)
    elif dice < 0.025:
        job["reject"] = True
    elif dice < 0.028:
        job["fail_until"] = _NEVER
    elif dice < 0.029:
        job["block"] = ack_wait * 0.5
    elif dice < 0.039:
        job["sleep"] = ack_wait * 1.5

    return job


def reason_for(job: dict[str, Any]) -> str | None:
    """Return why the job is to be a dead letter in the end; None when it is to be completed."""
    if job.get("reject"):
        return "rejected"

    return "exhausted" if job.get("fail_until") == _NEVER else None


@dataclass
class Producers:
    """Enqueue numbered jobs; `confirmed` has those whose confirmation came back.

    Attributes:
        pace: seconds that each producer waits after each lot.
    """

    stream: str
    jobs: list[dict[str, Any]]
    confirmed: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    pace: float = 0.0

    async def run(self, p: JobProcessor) -> None:
        shares = [self.jobs[part::_PRODUCERS] for part in range(_PRODUCERS)]
        async with anyio.create_task_group() as group:
            for share in shares:
                group.start_soon(self._produce, p, share)

    async def _produce(self, p: JobProcessor, share: list[dict[str, Any]]) -> None:
        for start in range(0, len(share), _MANY):
            some = share[start : start + _MANY]
            numbers = {job["n"] for job in some}
            try:
                await p.enqueue_many(self.stream, some, ids=[f"{self.stream}-{job['n']}" for job in some])
            except NatsJobsError:
                # Some may be stored: they may run, and need not.
                self.doubtful |= numbers
            else:
                self.confirmed |= numbers

            await anyio.sleep(self.pace)
