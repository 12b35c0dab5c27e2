"""What a run has shown, as a line; what many have shown, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .checker import Verdict

__all__ = ("Report", "as_json", "table")

_HEAD = (
    "| servers | backend | runs | jobs | attempts | faults | lost | overlaps | longest | excused | longest |"
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run. `holds` is whether every promise was kept."""

    title: str
    seed: int
    backend: str
    servers: str
    seconds: float
    verdict: Verdict
    faults: Counter[str]
    left_in_stream: int
    dead_letters: int
    exit_codes: list[int]
    longest_stop: float

    @property
    def holds(self) -> bool:
        return self.verdict.holds and not self.left_in_stream and not self.exit_codes

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"{'ok  ' if self.holds else 'FAIL'} {self.title}, "
            f"{self.seconds:.0f} s: {self.verdict}, dead letters {self.dead_letters}, left {self.left_in_stream}, "
            f"exit codes {self.exit_codes}, longest stop {self.longest_stop:.1f} s, faults: {faults}"
            + "".join(f"\n     {line}" for line in self._evidence())
        )

    def _evidence(self) -> list[str]:
        verdict = self.verdict
        return [
            *(f"lost: {number}" for number in sorted(verdict.lost)),
            *(f"dead letter of {number}: {reason}" for number, reason in verdict.misjudged.items()),
            *(f"overlap: {earlier}\n         and: {later}" for earlier, later in verdict.overlapping),
            *(f"fence: {earlier}\n       and: {later}" for earlier, later in verdict.backwards),
        ]


def table(reports: Sequence[Report]) -> str:
    """Return a table in Markdown: a row for each kind of site and backend."""
    rows = [_row(list(group)) for _, group in groupby(sorted(reports, key=_kind), key=_kind)]
    return "\n".join([_HEAD, "|---|---|" + "---:|" * 9, *rows])


def as_json(report: Report) -> dict[str, Any]:
    verdict = report.verdict
    return {
        "servers": report.servers,
        "backend": report.backend,
        "seed": report.seed,
        "seconds": round(report.seconds, 1),
        "holds": report.holds,
        "jobs": verdict.jobs,
        "attempts": verdict.attempts,
        "faults": dict(sorted(report.faults.items())),
        "lost": len(verdict.lost),
        "overlaps": len(verdict.overlapping),
        "longest_overlap": verdict.longest_overlap,
        "excused_overlaps": verdict.excused,
        "longest_excused_overlap": verdict.longest_excused,
        "completed_twice": verdict.twice,
        "stored_twice": verdict.stored_twice,
        "leases_lost": verdict.lease_lost,
        "dead_letters": report.dead_letters,
        "longest_stop": report.longest_stop,
    }


def _kind(report: Report) -> tuple[str, str]:
    return report.servers, report.backend


def _row(reports: list[Report]) -> str:
    verdicts = [report.verdict for report in reports]
    cells = [
        *_kind(reports[0]),
        len(reports),
        _thousands(sum(verdict.jobs for verdict in verdicts)),
        _thousands(sum(verdict.attempts for verdict in verdicts)),
        _thousands(sum(report.faults.total() for report in reports)),
        sum(len(verdict.lost) for verdict in verdicts),
        sum(len(verdict.overlapping) for verdict in verdicts),
        f"{max(verdict.longest_overlap for verdict in verdicts):.1f} s",
        sum(verdict.excused for verdict in verdicts),
        f"{max(verdict.longest_excused for verdict in verdicts):.1f} s",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _thousands(count: int) -> str:
    return f"{count:,}"
