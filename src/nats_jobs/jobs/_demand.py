"""How many messages to ask for.

A delivery that waits here uses up its lease, so only what can start at once is asked for. "At once"
includes the slots that will have become free by the time a message has travelled here: when jobs take
a millisecond, asking only for what is free now would leave the slots idle half of the time.
"""

from __future__ import annotations

__all__ = ("Demand",)

# Seconds: a message that was asked for is here by then, on a link that is worth the name.
_TRAVEL = 0.01


class Demand:
    """Says how many messages to ask for. Pure arithmetic on counts and times.

    Args:
        concurrency: how many jobs can run at once.
        batch: the most for one request, when the user gave it; above `concurrency` it is also how many
            may be in hand.
    """

    def __init__(self, concurrency: int, batch: int | None) -> None:
        self.concurrency = concurrency
        self._batch = batch
        self._prefetch = max(0, (batch or 0) - concurrency)
        self._ahead = 0
        self._completed = 0
        self._since: float | None = None

    @property
    def prefetches(self) -> bool:
        """Whether the user asked for more than can start at once."""
        return self._prefetch > 0

    def completed(self) -> None:
        """Count a job that has ended."""
        self._completed += 1

    def slowed_down(self) -> None:
        """What was asked for in advance could not start: ask for less."""
        self._ahead = 0

    def missing(self, in_hand: int, outstanding: int) -> int:
        """Return how many could be asked for. Cheap, for each job."""
        return self.concurrency + max(self._ahead, self._prefetch) - in_hand - outstanding

    def batch(self, now: float, missing: int, waiting: int, outstanding: int) -> int:
        """Return how many to ask for now; 0 while what is under way or waiting suffices."""
        if missing < 1 or (4 * missing < self.concurrency + self._ahead and (waiting or outstanding)):
            return 0

        self._look_ahead(now)
        return min(missing, self._batch or missing)

    def _look_ahead(self, now: float) -> None:
        if self._since is not None and now > self._since:
            expected = int(self._completed / (now - self._since) * _TRAVEL)
            self._ahead = min(self.concurrency, (self._ahead + expected + 1) // 2 if expected else 0)

        self._since = now
        self._completed = 0
