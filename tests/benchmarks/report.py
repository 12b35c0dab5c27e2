"""The table: medians over the rounds, ratios within a round with their range, and the target beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeAlias

from benchmarks.rows import Row
from benchmarks.runs import INVALID, Run

__all__ = ("Line", "Round", "lines_of", "table")

Round: TypeAlias = Mapping[Run, Mapping[str, Any]]
"""The figures of each run that was done in one round."""

_HEAD = ("work", "backend", "stream", "payload", "ours", "beside it", "figure (range)", "target", "")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row with what was measured. `figures` has one for each round that counts."""

    row: Row
    ours: Sequence[float]
    beside: Sequence[float]
    figures: Sequence[float]
    invalid: Sequence[str]

    @property
    def verdict(self) -> str:
        if not self.figures:
            return "INVALID"

        target = self.row.target
        met = "" if target is None else "met" if target.met_by(median(self.figures)) else "missed"
        return f"{met} ({len(self.invalid)} rounds INVALID)" if self.invalid else met

    def to_json(self) -> dict[str, Any]:
        run = self.row.ours
        return {
            "work": self.row.what,
            "backend": run.backend,
            "storage": run.storage,
            "payload": run.payload,
            "jobs": run.n,
            "concurrency": run.concurrency,
            "key": self.row.key,
            "ours": list(self.ours),
            "beside": list(self.beside),
            "figures": list(self.figures),
            "target": None if self.row.target is None else str(self.row.target),
            "verdict": self.verdict,
            "invalid": list(self.invalid),
        }


def lines_of(rows: Iterable[Row], rounds: Sequence[Round]) -> list[Line]:
    """Put what was measured beside each row."""
    return [_line(row, rounds) for row in rows]


def table(lines: Iterable[Line]) -> str:
    """Return a markdown table."""
    body = [_cells(line) for line in lines]
    rows = [_HEAD, tuple("---" for _ in _HEAD), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _line(row: Row, rounds: Sequence[Round]) -> Line:
    ours: list[float] = []
    beside: list[float] = []
    figures: list[float] = []
    invalid: list[str] = []
    for done in rounds:
        sides = [done[run] for run in (row.ours, row.beside) if run is not None]
        bad = [str(side[INVALID]) for side in sides if INVALID in side]
        if bad:
            invalid += bad
            continue

        values = [float(side[row.key]) for side in sides]
        ours.append(values[0])
        beside += values[1:]
        figures.append(values[0] / values[1] if row.by_ratio else values[0] / row.scale)

    return Line(row=row, ours=ours, beside=beside, figures=figures, invalid=invalid)


def _cells(line: Line) -> tuple[str, ...]:
    row, run = line.row, line.row.ours
    return (
        row.what,
        run.backend,
        run.storage,
        f"{run.payload} B",
        _middle(line.ours),
        _middle(line.beside),
        _range(line.figures),
        str(row.target or "-"),
        line.verdict,
    )


def _middle(values: Sequence[float]) -> str:
    return _short(median(values)) if values else "-"


def _range(values: Sequence[float]) -> str:
    return f"**{median(values):.2f}** ({min(values):.2f}-{max(values):.2f})" if values else "-"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
