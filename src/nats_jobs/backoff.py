"""How long to wait before the next try: pure functions, seconds throughout."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from .errors import UsageError

__all__ = ("Backoff", "check_backoff", "delay_of", "exp_backoff", "jittered")

Backoff: TypeAlias = float | Sequence[float] | Callable[[int], float]
"""Seconds; or seconds for each attempt, the last one repeating; or `f(attempt) -> seconds`, attempts counted from 1."""


def exp_backoff(start: float, num_entries: int = 5, repeat_after: int | None = None) -> list[float]:
    """List `num_entries` delays that double from `start`, until `repeat_after` entries; from then on the last repeats.

    >>> exp_backoff(1.0)
    [1.0, 2.0, 4.0, 8.0, 16.0]
    >>> exp_backoff(1.0, num_entries=4, repeat_after=2)
    [1.0, 2.0, 2.0, 2.0]

    Raises:
        UsageError: `start` is not a finite number of seconds, 0 or more, a count is below 1, or the delays
            grow beyond every number.
    """
    _check_seconds("exp_backoff: start", start)
    repeat_after = num_entries if repeat_after is None else repeat_after
    if num_entries < 1 or repeat_after < 1:
        raise UsageError("exp_backoff: num_entries and repeat_after are 1 or more")

    try:
        return [math.ldexp(start, min(entry, repeat_after - 1)) for entry in range(num_entries)]
    except OverflowError:
        raise UsageError(
            f"exp_backoff: {start:g} s cannot double up to num_entries={num_entries}; give repeat_after"
        ) from None


def delay_of(backoff: Backoff, attempt: int) -> float:
    """Return the seconds to wait after failing attempt number `attempt` (from 1).

    Raises:
        UsageError: a function returned something that is not a delay.
    """
    if callable(backoff):
        delay = backoff(attempt)
        _check_seconds(f"backoff({attempt})", delay)
        return float(delay)

    if isinstance(backoff, Sequence):
        return float(backoff[min(attempt, len(backoff)) - 1])

    return float(backoff)


def check_backoff(backoff: object) -> None:
    """Refuse what `delay_of` could not use."""
    if callable(backoff):
        return

    if isinstance(backoff, Sequence) and not isinstance(backoff, str | bytes):
        if not backoff:
            raise UsageError("backoff: an empty list; give at least one delay in seconds")

        for position, delay in enumerate(backoff):
            _check_seconds(f"backoff[{position}]", delay)
    else:
        _check_seconds("backoff", backoff)


def jittered(tries: int, *, first: float, most: float, rng: Callable[[], float] = random.random) -> float:
    """Return a delay that doubles with `tries` (from 0) up to `most`, of which the upper half is random."""
    ceiling = min(most, first * 2.0 ** min(tries, 32))
    return ceiling / 2 + ceiling / 2 * rng()


def _check_seconds(what: str, delay: object) -> None:
    if not isinstance(delay, int | float) or isinstance(delay, bool) or not 0 <= delay < math.inf:
        raise UsageError(f"{what} is {delay!r}; a delay is a finite number of seconds, 0 or more")
