"""Runs the chaos suite, from the folder `tests`: a line for each run, and a table in the end.

`python -m chaos --seed 7` is one run on each backend, `--seed 7 --cluster` the same on three nodes;
`--seeds 20 --cluster 5` is many of both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
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
    for scenario in _scenarios(options):
        try:
            reports.append(_run(scenario))
        except TimeoutError as error:
            hung += 1
            print(f"FAIL {scenario.title}: hangs, {error!r}", flush=True)
        else:
            print(reports[-1], flush=True)

    print(f"\n{table(reports)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([as_json(report) for report in reports], indent=2) + "\n")

    return 1 if hung or not all(report.holds for report in reports) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the first one")
    parser.add_argument("--seeds", type=int, help="how many, on a single server")
    parser.add_argument("--cluster", type=int, nargs="?", const=1, default=0, help="how many, on three nodes")
    parser.add_argument("--jobs", type=int, default=10_000, help="in each run")
    parser.add_argument("--backend", choices=["asyncio", "trio"], action="append")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of each run there, too")
    options = parser.parse_args()
    if options.seeds is None:
        options.seeds = 0 if options.cluster else 1

    return options


def _scenarios(options: argparse.Namespace) -> Iterator[Scenario]:
    for cluster, count, pace in ((False, options.seeds, _PACE), (True, options.cluster, _PACE_OF_CLUSTER)):
        for backend in options.backend or ["asyncio", "trio"]:
            for seed in range(options.seed, options.seed + count):
                yield Scenario(seed=seed, backend=backend, jobs=options.jobs, cluster=cluster, pace=pace)


def _run(scenario: Scenario) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        return anyio.run(run_scenario, scenario, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
