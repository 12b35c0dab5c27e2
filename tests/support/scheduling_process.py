"""A process that follows one schedule until it is killed, and all that can be done to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio
from nats.js.api import DiscardPolicy, StreamConfig

from nats_jobs import Job, JobDef, job_processor
from nats_jobs.scheduler import Every, Schedule

__all__ = ("SchedulingProcess", "definition", "schedule", "scheduling_process")


def definition(stream: str, engine: str) -> JobDef[None]:
    """Return the definition of the jobs; `engine` is "batch" or "claim", what keeps their ticks apart."""

    async def perform(job: Job[None]) -> None: ...

    config = StreamConfig(discard=DiscardPolicy.NEW) if engine == "claim" else None
    return JobDef(stream=stream, perform=perform, stream_config=config)


def schedule(stream: str, engine: str, interval: float) -> Schedule[None]:
    return Schedule(
        id=stream,
        rule=Every(interval),
        target=definition(stream, engine),
        catch_up="all",
        max_catch_up=100_000,
    )


class SchedulingProcess:
    """Starts with the block and is killed at its end."""

    def __init__(self, *args: str) -> None:
        self._args = args
        self._process = self._spawned()

    def kill(self) -> None:
        """Kill it, as a crash would; also one that is paused."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self._process = self._spawned()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def _spawned(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, __file__, *self._args], env=os.environ)


@contextmanager
def scheduling_process(
    url: str, stream: str, engine: str, interval: float, backend: str
) -> Iterator[SchedulingProcess]:
    process = SchedulingProcess(url, stream, engine, str(interval), backend)
    try:
        yield process
    finally:
        process.kill()


async def main(url: str, stream: str, engine: str, interval: str) -> None:
    async with job_processor(url, wait_for_server=60.0, max_reconnect_attempts=-1) as p:
        p.schedule(schedule(stream, engine, float(interval)))


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:5]), backend=sys.argv[5])
