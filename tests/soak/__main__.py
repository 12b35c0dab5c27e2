"""`python -m soak`, from the folder `tests`: one run on each backend, with a table for each."""

from __future__ import annotations

import argparse
import sys

import anyio

from soak.order import BACKENDS, Soak
from soak.run import run_soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="that do nothing")
    parser.add_argument("--failing", type=int, default=60_000, help="that end as dead letters")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="default: asyncio and trio")
    options = parser.parse_args()
    wrong = 0
    for backend in options.backend or ["asyncio", "trio"]:
        soak = Soak(jobs=options.jobs, failing=options.failing, backend=backend)
        report = anyio.run(run_soak, soak)
        print(report, flush=True)
        wrong += len(report.problems())

    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
