"""The benchmarks run, every row is measured, and every run counts. What the figures are is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ledger import Ledger, payload
from benchmarks.rows import WORKS
from benchmarks.runs import INVALID

HERE = Path(__file__).resolve().parent
LIMIT = 300


def test_a_quick_run_measures_every_row_and_no_run_is_invalid(tmp_path: Path) -> None:
    """One round of everything on asyncio, so that no work rots."""
    written = tmp_path / "figures.json"
    table = benchmarks("--quick", "--backends", "asyncio", "--json", str(written))

    lines = json.loads(written.read_text())["lines"]
    assert len(lines) >= len(WORKS)
    for line in lines:
        assert line["figures"], line
        assert f"| {line['work']} | asyncio |" in table

    assert INVALID.upper() not in table


def test_every_backend_is_measured_beside_the_same_reference(tmp_path: Path) -> None:
    """The reference is asyncio's in each row; ours is on the backend that the row names."""
    written = tmp_path / "figures.json"
    benchmarks("--quick", "--works", "drain", "--json", str(written))

    lines = json.loads(written.read_text())["lines"]
    rates = [line for line in lines if line["key"] == "rate"]
    assert [line["backend"] for line in rates] == ["asyncio", "uvloop", "trio"]
    assert len({tuple(line["beside"]) for line in rates}) == 1


@pytest.mark.parametrize(
    ("starts", "ends"),
    [([0], [0]), ([0, 1, 1], [0, 1, 1]), ([0, 1, 1], [0, 1]), ([0, 1], [0])],
    ids=["a job lost", "one performed twice", "one started twice", "one without an end"],
)
def test_a_run_counts_only_if_each_job_started_once_and_ended_once(
    starts: list[int], ends: list[int]
) -> None:
    """The ledger of two jobs, told of something else."""
    ledger = Ledger(2)
    for index in starts:
        ledger.start(payload(index, 100))

    for index in ends:
        ledger.end(index)

    assert INVALID in ledger.figures()


def test_a_job_that_started_once_and_ended_once_counts() -> None:
    ledger = Ledger(1)
    ledger.end(ledger.start(payload(0, 100)))
    assert INVALID not in ledger.figures()


def benchmarks(*arguments: str) -> str:
    """Run them as a user does, and return the table."""
    command = [sys.executable, str(HERE), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
