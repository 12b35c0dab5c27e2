"""Which jobs started and ended, how often and when. Kept in the process that performs them."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.runs import INVALID

__all__ = ("Ledger", "payload", "resident_bytes")

_DIGITS = 8
_PAGES = "/proc/self/statm"
_PAGE_BYTES = 4096


def payload(index: int, size: int) -> bytes:
    """Return what job `index` carries: its number, and padding up to `size` bytes."""
    return b"%0*d" % (_DIGITS, index) + b"x" * (size - _DIGITS)


class Ledger:
    """One byte for the starts and one for the ends of each of `n` jobs.

    Args:
        n: the jobs have the numbers 0 to n - 1.
        at: call `reached` when so many have ended.
        done: called when as many have ended as there are.
    """

    def __init__(
        self,
        n: int,
        *,
        done: Callable[[], None] = lambda: None,
        at: int = 0,
        reached: Callable[[], None] = lambda: None,
    ) -> None:
        self.first_start = 0.0
        self._first_cpu = 0.0
        self._n = n
        self._ended = 0
        self._done = done
        self._at = at
        self._reached = reached
        self._starts, self._ends = bytearray(n), bytearray(n)
        # Written once, so that the memory is there and does not look like growth later.
        self._starts[:], self._ends[:] = bytes(n), bytes(n)

    def start(self, payload: bytes | str) -> int:
        """Note a start, and return the number of the job."""
        if not self.first_start:
            self.first_start = time.monotonic()
            self._first_cpu = time.process_time()

        index = int(payload[:_DIGITS])
        self._starts[index] += 1
        return index

    def end(self, index: int) -> None:
        """Note an end."""
        self._ends[index] += 1
        self._ended += 1
        if self._ended == self._at:
            self._reached()

        if self._ended == self._n:
            self._done()

    @property
    def complete(self) -> bool:
        return self._ended >= self._n

    def figures(self) -> dict[str, float | str]:
        """Return the rate up to now, which is when the stream was seen empty; or that it does not count."""
        if set(self._starts) | set(self._ends) != {1}:
            bad = sum(1 for pair in zip(self._starts, self._ends, strict=True) if pair != (1, 1))
            return {INVALID: f"{bad} of {self._n} jobs did not start and end exactly once"}

        seconds = time.monotonic() - self.first_start
        cpu = time.process_time() - self._first_cpu
        return {"rate": self._n / seconds, "seconds": seconds, "cpu_us": cpu / self._n * 1e6}


def resident_bytes() -> int:
    """Return how much memory this process has now. Linux only; 0 elsewhere."""
    try:
        with open(_PAGES) as pages:
            return int(pages.read().split()[1]) * _PAGE_BYTES
    except FileNotFoundError:
        return 0
