"""Reads the ledger when all is over, and says what was promised and does not hold.

The rules, and the bounds on time:

* Every confirmed job was completed, or is a dead letter.
* A dead letter has the reason that its payload asked for.
* Two completions of one job do not overlap, not by a moment. A handler that lost its lease does not complete:
  the ledger has LEASE_LOST for it instead.
* The fences of those that completed one message rise. Who is held up may start late, under a fence that has been
  passed: it is told, loses the lease, and does not complete.

The last two hold for as long as the server remembers. One that is killed, or the one that takes over from it,
may know less than was confirmed to the workers, and then delivers what its holder has every reason to think its
own. The checker counts such overlaps by themselves, and knows them by this, that a server went after the one was
delivered and before the other started, and:

* The second to start has a fence that is not higher. The delivery itself was forgotten; or the first to be
  delivered waited for a while, in a process that was held up.
* An extension was forgotten: the second attempt starts within `ack_wait` of the server's return, and, as it is
  announced, they overlap for `ack_wait` at most.
* A leader was parted from the others, and its successor knew nothing of the extensions that it went on to confirm.
  No announcement comes through either: the two overlap for as long as the parting lasts, and `ack_wait`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

__all__ = ("Outage", "Span", "Verdict", "judge")


@dataclass(frozen=True)
class Outage:
    """From the moment a server went until it, or another in its place, had taken up its work.

    `parted`: it did not go, but could not reach the others, who elected another. There were two until it ended.
    """

    began: float
    ended: float
    parted: bool = False

    def between(self, earlier: Span, later: Span) -> bool:
        """Whether it came after the delivery of one, and before the start of the other."""
        return min(earlier.delivered, later.delivered) < self.ended and later.started >= self.began


@dataclass
class Span:
    """One attempt as the ledger shows it; `delivered` at that time or later. `ended` is None when it was killed."""

    number: int
    pid: int
    fence: tuple[int, int]
    delivered: float
    started: float
    ended: float | None = None
    how: str | None = None


@dataclass
class Verdict:
    """What was counted, and what does not hold: `lost`, `overlapping`, `backwards` and `misjudged` must be empty."""

    jobs: int
    attempts: int = 0
    lost: set[int] = field(default_factory=set)
    overlapping: list[tuple[Span, Span]] = field(default_factory=list)
    backwards: list[tuple[Span, Span]] = field(default_factory=list)
    misjudged: dict[int, str | None] = field(default_factory=dict)
    excused: int = 0
    longest_excused: float = 0.0
    longest_overlap: float = 0.0
    twice: int = 0
    stored_twice: int = 0
    lease_lost: int = 0

    @property
    def holds(self) -> bool:
        return not (self.lost or self.overlapping or self.backwards or self.misjudged)

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs, {self.attempts} attempts, lost {len(self.lost)}, completed twice {self.twice}, "
            f"stored twice {self.stored_twice}, leases lost {self.lease_lost}, "
            f"overlaps {len(self.overlapping)} (longest {self.longest_overlap:.3f} s), "
            f"forgotten by a server {self.excused} (longest {self.longest_excused:.3f} s)"
        )


def judge(
    entries: Iterable[dict[str, Any]],
    confirmed: set[int],
    letters: Mapping[int, str | None],
    asked_for: Mapping[int, str],
    outages: list[Outage],
    ack_wait: float,
) -> Verdict:
    """Compare the ledger with what was confirmed.

    Args:
        letters: the reason of each dead letter, by the number of its job.
        asked_for: the reason that the payload of a job asks for; jobs without are to be completed.
    """
    jobs = _spans(entries)
    verdict = Verdict(len(confirmed))
    verdict.lost = confirmed - _completed(jobs) - letters.keys()
    verdict.misjudged = {n: why for n, why in letters.items() if why is None or why != asked_for.get(n)}
    for attempts in jobs.values():
        done = [span for span in attempts if span.how == "end"]
        _count(verdict, attempts)
        _judge_overlaps(verdict, done, outages, ack_wait)
        _judge_fences(verdict, done, outages)

    return verdict


def _completed(jobs: Mapping[int, list[Span]]) -> set[int]:
    return {number for number, attempts in jobs.items() if any(span.how == "end" for span in attempts)}


def _count(verdict: Verdict, attempts: list[Span]) -> None:
    verdict.attempts += len(attempts)
    verdict.twice += sum(span.how == "end" for span in attempts) > 1
    verdict.stored_twice += len({span.fence[0] for span in attempts}) > 1
    verdict.lease_lost += sum(span.how == "LEASE_LOST" for span in attempts)


def _judge_overlaps(verdict: Verdict, done: list[Span], outages: list[Outage], ack_wait: float) -> None:
    for earlier, later in combinations(done, 2):
        assert earlier.ended is not None
        assert later.ended is not None
        overlap = min(earlier.ended, later.ended) - later.started
        if overlap <= 0:
            continue

        if any(_forgotten(earlier, later, overlap, outage, ack_wait) for outage in outages):
            verdict.excused += 1
            verdict.longest_excused = max(verdict.longest_excused, overlap)
        else:
            verdict.overlapping.append((earlier, later))
            verdict.longest_overlap = max(verdict.longest_overlap, overlap)


def _forgotten(earlier: Span, later: Span, overlap: float, outage: Outage, ack_wait: float) -> bool:
    """Whether the one who delivered it the second time could not know of the first, or that its lease was extended."""
    if not outage.between(earlier, later):
        return False

    delivery_forgotten = later.fence <= earlier.fence
    extension_forgotten = later.started < outage.ended + ack_wait and overlap <= ack_wait
    two_leaders = outage.parted and later.started + overlap < outage.ended + ack_wait
    return delivery_forgotten or extension_forgotten or two_leaders


def _judge_fences(verdict: Verdict, done: list[Span], outages: list[Outage]) -> None:
    for earlier, later in pairwise(done):
        # A job that was stored twice is two messages, each with fences of its own.
        same_message = earlier.fence[0] == later.fence[0]
        remembered = not any(outage.between(earlier, later) for outage in outages)
        if same_message and remembered and later.fence <= earlier.fence:
            verdict.backwards.append((earlier, later))


def _spans(entries: Iterable[dict[str, Any]]) -> dict[int, list[Span]]:
    """Return the attempts of each job, in the order in which they started."""
    spans: dict[int, list[Span]] = defaultdict(list)
    running: dict[tuple[int, int, tuple[int, int]], Span] = {}
    for entry in entries:
        fence = (entry["fence"][0], entry["fence"][1])
        key = entry["pid"], entry["n"], fence
        if entry["what"] == "start":
            delivered = entry["at"] - entry["waited"]
            running[key] = Span(entry["n"], entry["pid"], fence, delivered, entry["at"])
            spans[entry["n"]].append(running[key])
        else:
            span = running.pop(key)
            span.ended = entry["at"]
            span.how = entry["reason"] if entry["what"] == "cut" else entry["what"]

    for attempts in spans.values():
        attempts.sort(key=lambda span: span.started)

    return spans
