"""A process that follows one schedule, which says that it starts each time and goes on until it is ended."""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
from nats.js.api import StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from nats_jobs import JobDef, job_processor
from nats_jobs.errors import ConnectFailed, SetupFailed
from nats_jobs.scheduler import Schedule

__all__ = ("Fleet", "SchedulerProcess", "fleet", "ticks_in")

BACKENDS = ("asyncio", "trio")


class SchedulerProcess:
    """One member of a fleet. It is started again, on the other backend, whenever it was ended."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._backend = 0
        self._start()

    def _start(self) -> None:
        backend = BACKENDS[self._backend % 2]
        self._backend += 1
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "support.scheduler_process",
            *self._arguments,
            backend,
        ]
        # From the folder of the tests, so that it finds `support`.
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[1])

    def restart(self, number: int) -> None:
        """End it with a signal, wait for its end, and start it again."""
        self._process.send_signal(number)
        self._process.wait(30)
        self._start()

    async def suspend(self, seconds: float) -> None:
        self._process.send_signal(signal.SIGSTOP)
        await anyio.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Fleet:
    """Several processes that follow the same schedule."""

    def __init__(self, members: list[SchedulerProcess], seed: int) -> None:
        self.members = members
        self._draw = random.Random(seed)

    async def disturb(self, pause: float) -> None:
        """Let something happen to one of them: it dies, is suspended for up to `pause` seconds, or is restarted."""
        member = self._draw.choice(self.members)
        what = self._draw.randrange(3)
        if what == 0:
            member.restart(signal.SIGKILL)
        elif what == 1:
            await member.suspend(self._draw.uniform(0.2, pause))
        else:
            member.restart(signal.SIGTERM)


@contextmanager
def fleet(
    size: int, urls: Sequence[str], stream: str, rule: str, replicas: int = 1, seed: int = 1
) -> Iterator[Fleet]:
    """Run processes that follow a schedule; they are killed when the block is left."""
    arguments = [",".join(urls), stream, rule, str(replicas)]
    members: list[SchedulerProcess] = []
    try:
        members += (SchedulerProcess(arguments) for _ in range(size))

        yield Fleet(members, seed)
    finally:
        for member in members:
            member.close()


async def ticks_in(js: JetStreamContext, stream: str) -> list[datetime]:
    """Return the ticks of all jobs in a stream, in the order in which they were stored."""
    state = (await js.stream_info(stream)).state
    found = []
    for sequence in range(state.first_seq, state.last_seq + 1):
        try:
            headers = (await js.get_msg(stream, sequence)).headers or {}
        except NotFoundError:
            continue  # a record that was replaced

        if (tick := headers.get("Nats-Jobs-Scheduled-For")) is not None:
            found.append(datetime.fromisoformat(tick))

    return found


async def perform(_: Any) -> None:
    """No worker is started: the jobs stay where they can be counted."""


async def main(options: argparse.Namespace) -> None:
    defn = JobDef[None](
        stream=options.stream, perform=perform, stream_config=StreamConfig(num_replicas=options.replicas)
    )
    schedule = Schedule(id="each", rule=options.rule, target=defn, catch_up="all")
    while True:
        try:
            async with job_processor(
                options.urls.split(","),
                stop_signals=(signal.SIGTERM,),
                reconnect_time_wait=0.2,
                wait_for_server=60.0,
            ) as p:
                await p.schedule(schedule).wait_stopped()
                return
        except (ConnectFailed, SetupFailed):
            # Whoever runs it would start it again. This is the same, and quicker.
            await anyio.sleep(0.2)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("urls")
    parser.add_argument("stream")
    parser.add_argument("rule")
    parser.add_argument("replicas", type=int)
    parser.add_argument("backend")
    return parser.parse_args()


if __name__ == "__main__":
    parsed = parse()
    anyio.run(main, parsed, backend=parsed.backend)
