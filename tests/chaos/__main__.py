"""`python -m chaos --seed 7`, from the folder `tests`: one run, or several seeds, with a line for each."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import anyio

from .scenario import Scenario, run_scenario


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--backend", choices=["asyncio", "trio"], action="append")
    options = parser.parse_args()
    failed = 0
    for backend in options.backend or ["asyncio", "trio"]:
        for seed in range(options.seed, options.seed + options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                scenario = Scenario(seed=seed, backend=backend, jobs=options.jobs, folder=Path(folder))
                report = anyio.run(run_scenario, scenario)

            print(report, flush=True)
            failed += not report.holds

    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
