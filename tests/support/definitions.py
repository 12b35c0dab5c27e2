"""Definitions that a worker program names by module. Where they work is told by the environment."""

from __future__ import annotations

import os
from pathlib import Path

from nats_jobs import Job, job

STREAM = os.environ.get("TEST_STREAM", "DEFINITIONS")
FOLDER = Path(os.environ.get("TEST_FOLDER", "."))


@job(STREAM, concurrency=5)
async def note(job: Job[int]) -> None:
    """Write down who performed which job."""
    with (FOLDER / "ledger").open("a") as ledger:
        ledger.write(f"{os.getpid()} {job.payload}\n")
