"""What a type checker says to users: the right calls pass, and a wrong name, type or payload is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Each line that ends with "# refused" is one that a checker must complain about, and there must be no others.
PROGRAM = """
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from nats_jobs import DetachedJob, Job, JobDef, job, job_processor
from nats_jobs.sync import Producer


class Order(TypedDict):
    id: int


@dataclass
class Point:
    x: int


async def ship(job: Job[Order]) -> None: ...
async def move(job: Job[Point]) -> None: ...
async def switch(job: Job[Literal["on", "off"]]) -> None: ...
def resize(job: DetachedJob[bytes]) -> None: ...


orders = JobDef(stream="ORDERS", perform=ship)
points = JobDef(stream="POINTS", perform=move)
switches = JobDef(stream="SWITCHES", perform=switch)


@job("ACTS", concurrency=2, timeout=1.5, backoff=[1, 2])
async def act(job: Job[Order]) -> None: ...


@job("PLAIN", num_attempts=3)
def plain(job: Job[int]) -> None: ...


@job("IMAGES", run_in="process")
def shrink(job: DetachedJob[bytes]) -> None: ...


job("ACTS", concurency=2)  # refused
job("ACTS", concurrency="2")  # refused
job("ACTS", run_in="fibre")  # refused
JobDef(stream="ACTS", perform=ship, concurency=2)  # refused
JobDef(stream="ACTS", perform=ship, timeout="1")  # refused
JobDef(stream="IMAGES", perform=resize, run_in="process")


async def main() -> None:
    async with job_processor() as p:
        await p.enqueue(orders, {"id": 1})
        await p.enqueue(orders, Order(id=1))
        await p.enqueue(act, {"id": 1})
        await p.enqueue(points, Point(1))
        await p.enqueue(switches, "on")
        await p.enqueue(plain, 5)
        await p.enqueue(shrink, b"")
        await p.enqueue("orders", {"whatever": 1})
        await p.enqueue_many(orders, [{"id": 1}])
        await p.enqueue_many(plain, range(3))
        await p.enqueue(orders, {"name": 1})  # refused
        await p.enqueue(orders, {"id": "1"})  # refused
        await p.enqueue(act, 5)  # refused
        await p.enqueue(points, {"x": 1})  # refused
        await p.enqueue(switches, "sideways")  # refused
        await p.enqueue(plain, "5")  # refused
        await p.enqueue_many(orders, [{"name": 1}])  # refused
        await p.start(ship)  # refused


with Producer() as producer:
    producer.enqueue(orders, {"id": 1})
    producer.enqueue_many(plain, range(3))
    producer.enqueue(orders, {"name": 1})  # refused
    producer.enqueue_many(orders, [{"name": 1}])  # refused
    producer.enqueue(plain, 5, dely=1)  # refused
"""


def by_mypy(program: Path) -> set[int]:
    done = run("mypy", "--strict", "--no-error-summary", "--cache-dir", str(program.parent), str(program))
    return {int(line) for line in re.findall(r"^.*program\.py:(\d+): error", done, re.MULTILINE)}


def by_pyright(program: Path) -> set[int]:
    reported = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, str(program)))
    return {
        problem["range"]["start"]["line"] + 1
        for problem in reported["generalDiagnostics"]
        if problem["severity"] == "error"
    }


def run(checker: str, *args: str) -> str:
    pytest.importorskip(checker)
    done = subprocess.run(
        [sys.executable, "-m", checker, *args], capture_output=True, text=True, check=False, timeout=300
    )
    return done.stdout


@pytest.mark.parametrize("lines_refused", [by_mypy, by_pyright])
def test_a_checker_refuses_what_is_wrong_and_nothing_else(
    tmp_path: Path, lines_refused: Callable[[Path], set[int]]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    lines = PROGRAM.splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}
    found = lines_refused(program)
    assert {lines[number - 1] for number in found ^ expected} == set()
