"""Handlers that run in a process of their own: functions at the top of a module that can be imported there."""

from __future__ import annotations

import os
import time
from pathlib import Path

from nats_jobs import DetachedJob


def note_pid(job: DetachedJob[str]) -> None:
    Path(job.payload).write_text(f"{os.getpid()} {job.attempt} {job.sequence}")


def sleep_in_process(job: DetachedJob[str]) -> None:
    Path(job.payload).write_text(str(os.getpid()))
    time.sleep(600)


def fail_in_process(job: DetachedJob[str]) -> None:
    raise ValueError("in the other process")
