"""`python -m chaos --seed 7`, from the folder `tests`: one run, or several seeds, with a line for each and a table.

A seed is tried on both backends, on a single server, and with `--cluster` on three nodes instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import anyio

from .report import Report, as_json, table
from .scenario import Scenario, run_scenario

# Seconds between two lots of a producer. A cluster is slower, and takes longer to lose and find a leader.
_PACE, _PACE_OF_CLUSTER = 0.4, 1.2


def main() -> int:
    options = _parse()
    reports: list[Report] = []
    hung = 0
    for backend in options.backend or ["asyncio", "trio"]:
        for seed in range(options.seed, options.seed + options.seeds):
            try:
                reports.append(_run(options, backend, seed))
            except TimeoutError as error:
                hung += 1
                print(f"FAIL seed {seed} {backend}: hangs, {error!r}", flush=True)
            else:
                print(reports[-1], flush=True)

    print(f"\n{table(reports)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([as_json(report) for report in reports], indent=2) + "\n")

    return 1 if hung or not all(report.holds for report in reports) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--backend", choices=["asyncio", "trio"], action="append")
    parser.add_argument("--cluster", action="store_true", help="three nodes instead of one server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of each run there, too")
    return parser.parse_args()


def _run(options: argparse.Namespace, backend: str, seed: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            seed=seed,
            backend=backend,
            jobs=options.jobs,
            folder=Path(folder),
            cluster=options.cluster,
            pace=_PACE_OF_CLUSTER if options.cluster else _PACE,
        )
        return anyio.run(partial(run_scenario, scenario))


if __name__ == "__main__":
    sys.exit(main())
