"""Reads the ledger when all is over, and says what was promised and does not hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

__all__ = ("Verdict", "judge")


@dataclass
class Span:
    """One attempt as the ledger shows it. `ended` is None when its process was killed in it."""

    number: int
    pid: int
    attempt: int
    started: float
    ended: float | None = None
    how: str | None = None


@dataclass
class Verdict:
    """`lost` and `overlapping` must be empty.

    `excused` are the overlaps that a worker cannot know of: the server was killed, forgot the extensions it
    had confirmed, and delivered again what its holder has every reason to think its own.
    """

    jobs: int
    attempts: int
    lost: set[int] = field(default_factory=set)
    overlapping: list[tuple[Span, Span]] = field(default_factory=list)
    excused: int = 0
    longest_excused: float = 0.0
    twice: int = 0
    longest_overlap: float = 0.0
    lease_lost: int = 0

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs, {self.attempts} attempts, lost {len(self.lost)}, completed twice {self.twice}, "
            f"leases lost {self.lease_lost}, overlaps {len(self.overlapping)} (longest {self.longest_overlap:.3f} s), "
            f"after a killed server {self.excused} (longest {self.longest_excused:.3f} s)"
        )


def judge(
    entries: Iterable[dict[str, Any]],
    confirmed: set[int],
    parked: set[int],
    outages: list[tuple[float, float]],
    ack_wait: float,
) -> Verdict:
    """Compare the ledger with what was confirmed; `parked` are the dead letters, `outages` those of the server."""
    spans = _spans(entries)
    verdict = Verdict(len(confirmed), sum(map(len, spans.values())))
    completed = {number for number, attempts in spans.items() if any(span.how == "end" for span in attempts)}
    verdict.lost = confirmed - completed - parked
    for attempts in spans.values():
        done = [span for span in attempts if span.how == "end"]
        verdict.twice += len(done) > 1
        verdict.lease_lost += sum(span.how == "LEASE_LOST" for span in attempts)
        for earlier, later in pairwise(sorted(done, key=lambda span: span.started)):
            assert earlier.ended is not None
            overlap = earlier.ended - later.started
            if overlap <= 0:
                continue

            if any(earlier.started < up and up <= later.started < up + ack_wait for _, up in outages):
                verdict.excused += 1
                verdict.longest_excused = max(verdict.longest_excused, overlap)
            else:
                verdict.overlapping.append((earlier, later))
                verdict.longest_overlap = max(verdict.longest_overlap, overlap)

    return verdict


def _spans(entries: Iterable[dict[str, Any]]) -> dict[int, list[Span]]:
    spans: dict[int, list[Span]] = defaultdict(list)
    running: dict[tuple[int, int, int], Span] = {}
    for entry in entries:
        key = entry["pid"], entry["n"], entry["attempt"]
        if entry["what"] == "start":
            running[key] = Span(entry["n"], entry["pid"], entry["attempt"], entry["at"])
            spans[entry["n"]].append(running[key])
        else:
            span = running.pop(key)
            span.ended = entry["at"]
            span.how = entry["reason"] if entry["what"] == "cut" else entry["what"]

    return spans
