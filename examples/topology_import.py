"""An import whose process is killed in the middle: the next one goes on with the rows that are missing.

Run it:  python examples/topology_import.py      (BACKEND=trio runs it on Trio)
It needs no server: the snapshots are in a file.

Prints::

    killed when 2 of 4 rows were converted
    converted by the next process: cherry, date
    store APPLE, BANANA, CHERRY, DATE
    completed, attempt 2
"""

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import anyio

from nats_jobs.topology import FileStore, NodeContext, Topology, node, resume_topology, run_topology

ID = "fruits"
here: list[str] = []  # what was converted in this process


@node()
async def read(ctx: NodeContext[Any]) -> list[str]:
    return ["apple", "banana", "cherry", "date"]


@node(deps=["read"], map=True)  # once for each row, and each row is in the snapshot by itself
async def convert(ctx: NodeContext[Any]) -> str:
    row: str = ctx.data[0]
    if ctx.context == "to be killed" and row in ("cherry", "date"):
        await anyio.sleep_forever()

    here.append(row)
    return row.upper()


@node(deps=["convert"])
async def store(ctx: NodeContext[Any]) -> None:
    (rows,) = ctx.data
    print("converted by the next process:", ", ".join(sorted(here)))
    print("store", ", ".join(rows))


IMPORT = Topology([read, convert, store], name="import")


async def be_killed(folder: str) -> None:
    await run_topology(IMPORT, id=ID, store=FileStore(folder), context="to be killed")


def kill_in_the_middle(folder: str, backend: str) -> None:
    with subprocess.Popen([sys.executable, __file__, "to be killed", folder]) as process:
        try:
            while (done := anyio.run(converted, folder, backend=backend)) < 2:
                time.sleep(0.02)
        finally:
            process.kill()

    print(f"killed when {done} of 4 rows were converted")


async def go_on(folder: str) -> None:
    snapshots = FileStore(folder)
    found = await snapshots.load(ID)
    assert found is not None
    snapshot, revision = found
    last = await resume_topology(IMPORT, snapshot, store=snapshots, revision=revision)
    print(f"{last.status}, attempt {last.attempt}")


async def converted(folder: str) -> int:
    found = await FileStore(folder).load(ID)
    items = (found[0]["convert"].items if found else None) or ()
    return sum(item.status == "completed" for item in items)


if __name__ == "__main__":
    backend = os.environ.get("BACKEND", "asyncio")
    if sys.argv[1:2] == ["to be killed"]:
        anyio.run(be_killed, sys.argv[2], backend=backend)
    else:
        with tempfile.TemporaryDirectory() as directory:
            kill_in_the_middle(directory, backend)
            anyio.run(go_on, directory, backend=backend)
