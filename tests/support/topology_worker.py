"""A worker process that runs random graphs, and that dies in the middle of them as it is planned to.

What its nodes do and what it saves is in a ledger outside NATS (`support.worker.Ledger`). A line has the number of
the run, and:

- `start`, `end`: the node.
- `saved`: the revision, the attempt of the run, and the nodes that are completed in it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
from nats.js.api import ConsumerConfig

from nats_jobs import Job, JobDef, JobProcessor, job_processor
from nats_jobs.topology import KVStore, Node, NodeContext, Revision, Snapshot, Store, Topology, topology_job
from support.worker import Ledger

NODES = 7
# Seconds after which the jobs of a killed worker are delivered again.
ACK_WAIT = 2.0
_MOMENTS = ("start", "state", "end")


def shape(number: int) -> dict[str, list[str]]:
    """The graph of a run: each node depends on up to two before it."""
    chance = random.Random(number)
    names = [f"n{each}" for each in range(NODES)]
    return {name: chance.sample(names[:at], k=min(at, chance.randint(0, 2))) for at, name in enumerate(names)}


def death(number: int) -> tuple[str, str]:
    """The node in which the first worker that comes there dies, and the moment."""
    chance = random.Random(-number - 1)
    return f"n{chance.randrange(NODES)}", chance.choice(_MOMENTS)


def topology_of(number: int, ledger: Ledger | None) -> Topology:
    """The graph of a run. Without a ledger nothing befalls it."""

    async def work(ctx: NodeContext[Any]) -> Any:
        def reached(moment: str) -> None:
            if ledger is not None and (ctx.node, moment) == death(number) and _first_death(ledger, number):
                os.kill(os.getpid(), signal.SIGKILL)

        if ledger is not None:
            ledger.write("start", number, node=ctx.node)

        reached("start")
        ctx.update_state("half")
        await anyio.sleep(0.01)
        reached("state")
        await anyio.sleep(0.01)
        if ledger is not None:
            ledger.write("end", number, node=ctx.node)

        reached("end")
        return [ctx.node, *ctx.data]

    return Topology({name: Node(work, deps=deps) for name, deps in shape(number).items()})


def _first_death(ledger: Ledger, number: int) -> bool:
    try:
        ledger.path.with_name(f"died-{number}").touch(exist_ok=False)
    except FileExistsError:
        return False

    return True


class RecordedStore:
    """A bucket whose saves are in the ledger, once they are confirmed."""

    def __init__(self, store: Store, ledger: Ledger, number: int) -> None:
        self._store = store
        self._ledger = ledger
        self._number = number

    async def load(self, id: str) -> tuple[Snapshot, Revision] | None:
        return await self._store.load(id)

    async def save(self, id: str, snapshot: Snapshot, expected: Revision | None) -> Revision:
        revision = await self._store.save(id, snapshot, expected)
        self._ledger.write(
            "saved",
            self._number,
            revision=revision,
            attempt=snapshot.attempt,
            completed=snapshot.names("completed"),
        )
        return revision


def definition(processor: JobProcessor, stream: str, ledger: Ledger) -> JobDef[Any]:
    """One definition for all graphs: its handler takes that of the run."""
    bucket = KVStore(processor, stream)

    async def perform(job: Job[Any]) -> None:
        number: int = job.payload["number"]
        one = topology_job(
            topology_of(number, ledger),
            stream=stream,
            store=RecordedStore(bucket, ledger, number),
            topology_id=lambda job: f"run-{number}",
        )
        handler: Any = one.perform
        await handler(job)

    return JobDef(
        stream=stream,
        perform=perform,
        concurrency=4,
        num_attempts=50,
        backoff=0.1,
        consumer_config=ConsumerConfig(ack_wait=ACK_WAIT),
    )


@contextmanager
def topology_worker(url: str, stream: str, ledger: Ledger, backend: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start one; it is killed when the block is left, if it still runs."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "support.topology_worker",
        url,
        stream,
        str(ledger.path),
        backend,
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def main(url: str, stream: str, ledger: Ledger) -> None:
    async with job_processor(url, stop_signals=(signal.SIGTERM,)) as p:
        p.start_soon(definition(p, stream, ledger))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for argument in ("url", "stream", "ledger", "backend"):
        parser.add_argument(argument)

    given = parser.parse_args()
    anyio.run(main, given.url, given.stream, Ledger(Path(given.ledger)), backend=given.backend)
