"""Measures nats-jobs beside a reference, in the same rounds on one server, and prints a table.

Absolute figures of a machine that others use, too, say little; so each work is done by every side in turn,
round by round in another order, and what counts are the ratios within a round. Each run is a process of
its own that takes its own time. It counts only if each job started once and ended once and the server
says that nothing is left; else it is INVALID.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from nats.errors import Error as NatsError

import nats_jobs
from benchmarks.report import Line, Round, lines_of, table
from benchmarks.rows import BACKENDS, FULL, LONG, QUICK, WORKS, Row, rows_of
from benchmarks.runs import INVALID, Order, Run
from benchmarks.site import leftovers, streams_for
from nats_jobs import JobProcessor, NatsJobsError, job_processor
from nats_jobs.server import run_server

__all__ = ("main",)

_TESTS = Path(__file__).resolve().parent.parent
# Not resolved: the sources may be put together from links.
_SOURCES = Path(nats_jobs.__file__).absolute().parent.parent
_LIMIT = 120.0
_LIMIT_PER_JOB = 0.002


def main(argv: Sequence[str] | None = None) -> int:
    """Return 1 when a run was INVALID."""
    options = _options(argv)
    lines = anyio.run(_measure, options)
    sys.stdout.write(table(lines) + "\n")
    for line in lines:
        for why in line.invalid:
            sys.stdout.write(f"\nINVALID {line.row.what} ({line.row.ours.backend}): {why}\n")

    if options.json is not None:
        _write(options.json, lines)

    return int(any(line.invalid for line in lines))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--works", type=_names(WORKS), default=list(WORKS), help=f"of {','.join(WORKS)}")
    parser.add_argument(
        "--backends", type=_names(BACKENDS), default=list(BACKENDS), help="separated by commas"
    )
    parser.add_argument("--rounds", type=int, help="default 5; 1 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round there")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="shows that it runs; its figures say nothing")
    sizes.add_argument("--long", action="store_true", help="memory over a million jobs")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.scale = QUICK if options.quick else LONG if options.long else FULL
    return options


def _names(known: Sequence[str] | dict[str, Any]) -> Any:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}; the known ones are: {', '.join(known)}")

        return chosen

    return names


async def _measure(options: argparse.Namespace) -> list[Line]:
    works = {work: rows_of(work, options.scale, options.backends) for work in options.works}
    rounds: dict[str, list[Round]] = {work: [] for work in works}
    async with run_server() as server, job_processor(server.url) as p:
        for number in range(options.rounds):
            for work, rows in works.items():
                _say(f"round {number + 1} of {options.rounds}: {work}")
                runs = _in_turn(rows, number)
                rounds[work].append({run: await _measured(run, p, server.url) for run in runs})

    return [line for work, rows in works.items() for line in lines_of(rows, rounds[work])]


def _in_turn(rows: Sequence[Row], number: int) -> list[Run]:
    """Return every run once, beginning with another one in each round."""
    both = [run for row in rows for run in (row.beside, row.ours) if run is not None]
    runs = list(dict.fromkeys(both))
    first = number % len(runs)
    return runs[first:] + runs[:first]


async def _measured(run: Run, p: JobProcessor, url: str) -> dict[str, Any]:
    try:
        async with streams_for(run, p) as streams:
            order = Order(run=run, url=url, streams=streams, spawned_at=time.monotonic())
            figures = await _figures_of(order)
            if INVALID not in figures and (left := await leftovers(run, p, streams)):
                figures = {INVALID: left}
    except (TimeoutError, NatsError, NatsJobsError) as error:
        figures = {INVALID: f"{type(error).__name__}: {error}"}

    if INVALID in figures:
        _say(f"  {run.label}: INVALID, {figures[INVALID]}")

    return figures


async def _figures_of(order: Order) -> dict[str, Any]:
    """Do a run in its own process, and return what that says of it."""
    command = [sys.executable, "-m", f"benchmarks.{order.run.side}", order.to_json()]
    paths = [str(_TESTS), str(_SOURCES), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with anyio.fail_after(_LIMIT + order.run.n * _LIMIT_PER_JOB):
        ended = await anyio.run_process(command, check=False, env=environment)

    if ended.returncode:
        return {INVALID: f"exit code {ended.returncode}: {ended.stderr.decode(errors='replace')[-2000:]}"}

    figures: dict[str, Any] = json.loads(ended.stdout)
    return figures


def _write(file: Path, lines: Sequence[Line]) -> None:
    report = {
        "nats_jobs": nats_jobs.__version__,
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "lines": [line.to_json() for line in lines],
    }
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
