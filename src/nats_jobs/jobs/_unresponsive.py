"""Watches over jobs that were cut short and go on all the same.

Such a job keeps its slot: giving the slot away while the code still runs would hide what happens. It is
reported after a margin. What then: with `wait`, nothing until the worker is stopped, and a stop waits for
it up to a last deadline; with `fail`, it is given up at once. Giving up a job raises `JobNotResponding` in
its place, which ends the processor.

What nothing can end is a coroutine that shields itself without a limit, or whose own child tasks ignore
their cancellation: then the processor's block cannot be left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import anyio

from .._clock import Clock
from ..errors import JobNotResponding
from ..events import NotResponding
from ._attempt import Attempt
from ._emitter import logger
from ._reporter import Reporter

__all__ = ("OnUnresponsive", "UnresponsiveMonitor", "UnresponsivePolicy")

_MIN_CHECK_INTERVAL = 0.05
_MAX_CHECK_INTERVAL = 1.0

OnUnresponsive: TypeAlias = Literal["wait", "fail"]


@dataclass(frozen=True, slots=True)
class UnresponsivePolicy:
    """How long a job may go on after it was cut short, in seconds, and what then."""

    report_after: float
    give_up_after: float
    then: OnUnresponsive


class UnresponsiveMonitor:
    """Looks at the attempts of one worker from time to time, in a task of its own.

    Args:
        running: returns the attempts that are under way.
    """

    def __init__(
        self,
        reporter: Reporter,
        policy: UnresponsivePolicy,
        clock: Clock,
        running: Callable[[], Iterable[Attempt]],
    ) -> None:
        self._report = reporter
        self._policy = policy
        self._clock = clock
        self._running = running
        self._interval = max(_MIN_CHECK_INTERVAL, min(_MAX_CHECK_INTERVAL, policy.report_after / 10))
        self._since: dict[Attempt, float] = {}
        self._reported: set[Attempt] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await anyio.sleep(self._interval)
            self.check(self._clock())

    def check(self, now: float) -> None:
        """Report, and give up, what has not responded for long enough."""
        cut_short = [attempt for attempt in self._running() if attempt.reason is not None]
        self._since = {attempt: self._since.get(attempt, now) for attempt in cut_short}
        self._reported &= self._since.keys()
        for attempt, since in self._since.items():
            seconds = now - since
            if seconds >= self._policy.report_after and attempt not in self._reported:
                self._tell(attempt, seconds)
                if self._policy.then == "fail":
                    self.give_up(attempt, seconds)

    def give_up(self, attempt: Attempt, seconds: float) -> None:
        """Let `JobNotResponding` be raised in the job's place."""
        assert attempt.reason is not None
        job = attempt.job
        attempt.abandon(JobNotResponding(job.stream, job.sequence, attempt.reason.text, seconds))

    def _tell(self, attempt: Attempt, seconds: float) -> None:
        reason = attempt.reason
        assert reason is not None
        self._reported.add(attempt)
        logger.error("%r was cancelled %.0f s ago (%s) and is still running", attempt, seconds, reason.text)
        self._report.job(NotResponding, attempt.delivery, reason=reason.value, seconds=seconds)
