"""Workers that are signalled: each job says in a ledger when it starts and when it has come to its end.

Arguments: URL, stream, ledger, backend, number of processes.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import anyio

from nats_jobs import Job, JobDef, run


async def work(job: Job[Any]) -> None:
    note("start", job)
    if job.payload == "exit":
        os._exit(0)

    await anyio.sleep(float(job.payload))
    note("end", job)


def note(what: str, job: Job[Any]) -> None:
    with open(sys.argv[3], "a") as ledger:
        ledger.write(f"{what} {job.payload} {os.getpid()}\n")


if __name__ == "__main__":
    run(
        JobDef(stream=sys.argv[2], perform=work, stop_grace=60),
        servers=sys.argv[1],
        backend=sys.argv[4],  # type: ignore[arg-type]
        processes=int(sys.argv[5]),
    )
