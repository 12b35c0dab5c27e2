"""Reads the ledger when all is over, and says what was promised and does not hold.

The rules, and the bounds on time:

* Every confirmed job was completed, or is a dead letter.
* A dead letter has the reason that its payload asked for.
* Two completions of one job do not overlap, not by a moment. A handler that lost its lease does not complete:
  the ledger has LEASE_LOST for it instead.
* The fences of those that completed one message rise. Who is held up may start late, under a fence that has been
  passed: it is told, loses the lease, and does not complete.

The last two hold for as long as the server remembers, and hears in time. One that is killed, or the one that takes over from it,
may know less than was confirmed to the workers, and then delivers what its holder has every reason to think its
own. The checker counts such overlaps by themselves, and knows them by this, that a server went after the one was
delivered and before the other started, and:

* The second to start has a fence that is not higher. The delivery itself was forgotten; or the first to be
  delivered waited for a while, in a process that was held up.
* An extension was forgotten: the second attempt starts within `ack_wait` of the server's return, and, as it is
  announced, they overlap for `ack_wait` at most.
* A leader was parted from the others, and its successor knew nothing of the extensions that it went on to confirm.
  No announcement comes through either: the two overlap for as long as the parting lasts, and `ack_wait`.

The other case is an answer that was given in time, and comes late, on a link that is held up or slow. The server
gave the job to somebody else meanwhile, and takes a nak for the first delivery as one for the second: a third
begins. Known by a link that was held up between that nak and the later start; also this is announced, and they
overlap for `ack_wait` at most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

__all__ = ("Outage", "Period", "Span", "Verdict", "judge")

# Ends of an attempt that are answered with a nak.
_GIVEN_BACK = ("failed", "STOP")


@dataclass(frozen=True)
class Period:
    """In which a link was held up, or slow."""

    began: float
    ended: float


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
            f"excused {self.excused} (longest {self.longest_excused:.3f} s)"
        )


def judge(
    entries: Iterable[dict[str, Any]],
    confirmed: set[int],
    letters: Mapping[int, str | None],
    asked_for: Mapping[int, str],
    outages: list[Outage],
    held_up: list[Period],
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
        case = _Case(attempts, outages, held_up, ack_wait)
        _count(verdict, attempts)
        _judge_overlaps(verdict, case)
        _judge_fences(verdict, case)

    return verdict


def _completed(jobs: Mapping[int, list[Span]]) -> set[int]:
    return {number for number, attempts in jobs.items() if any(span.how == "end" for span in attempts)}


def _count(verdict: Verdict, attempts: list[Span]) -> None:
    verdict.attempts += len(attempts)
    verdict.twice += sum(span.how == "end" for span in attempts) > 1
    verdict.stored_twice += len({span.fence[0] for span in attempts}) > 1
    verdict.lease_lost += sum(span.how == "LEASE_LOST" for span in attempts)


@dataclass
class _Case:
    """The attempts of one job, and what may excuse them."""

    attempts: list[Span]
    outages: list[Outage]
    held_up: list[Period]
    ack_wait: float

    @property
    def done(self) -> list[Span]:
        return [span for span in self.attempts if span.how == "end"]

    def forgotten(self, earlier: Span, later: Span, overlap: float) -> bool:
        """Whether a server could not know of the first delivery, or that its lease was extended."""
        return any(self._forgotten_in(outage, earlier, later, overlap) for outage in self.outages)

    def _forgotten_in(self, outage: Outage, earlier: Span, later: Span, overlap: float) -> bool:
        if not outage.between(earlier, later):
            return False

        delivery_forgotten = later.fence <= earlier.fence
        extension_forgotten = later.started < outage.ended + self.ack_wait and overlap <= self.ack_wait
        two_leaders = outage.parted and later.started + overlap < outage.ended + self.ack_wait
        return delivery_forgotten or extension_forgotten or two_leaders

    def answered_late(self, earlier: Span, later: Span, overlap: float) -> bool:
        """Whether a nak for a delivery before these two may have come between them."""
        first = min(earlier.fence, later.fence)
        given_back = [span for span in self.attempts if span.fence < first and span.how in _GIVEN_BACK]
        return overlap <= self.ack_wait and any(
            span.started < link.ended and link.began < later.started
            for span in given_back
            for link in self.held_up
        )


def _judge_overlaps(verdict: Verdict, case: _Case) -> None:
    for earlier, later in combinations(case.done, 2):
        assert earlier.ended is not None
        assert later.ended is not None
        overlap = min(earlier.ended, later.ended) - later.started
        if overlap <= 0:
            continue

        if case.forgotten(earlier, later, overlap) or case.answered_late(earlier, later, overlap):
            verdict.excused += 1
            verdict.longest_excused = max(verdict.longest_excused, overlap)
        else:
            verdict.overlapping.append((earlier, later))
            verdict.longest_overlap = max(verdict.longest_overlap, overlap)


def _judge_fences(verdict: Verdict, case: _Case) -> None:
    for earlier, later in pairwise(case.done):
        # A job that was stored twice is two messages, each with fences of its own.
        same_message = earlier.fence[0] == later.fence[0]
        remembered = not any(outage.between(earlier, later) for outage in case.outages)
        in_time = not case.answered_late(earlier, later, 0)
        if same_message and remembered and in_time and later.fence <= earlier.fence:
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
