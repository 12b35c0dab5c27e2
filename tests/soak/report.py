"""What a soak has shown: a table, and what speaks against the promise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from soak.order import Soak

__all__ = ("Report",)

_HEAD = ("", "first", "most", "last")
# The tasks of the connection, the worker and the backend, besides one for each slot.
_OTHER_TASKS = 40
# One for each quarter of what may be in hand; as many again that the server has not yet seen to be dead.
_PULL_REQUESTS = 20
# Pull requests move to a new inbox when something is doubtful, and the old one is left at the same time.
_CHANGING = 2
# Settlements that wait for their confirmation, while the slots go on.
_REQUESTS_PER_SLOT = 20


@dataclass(frozen=True)
class Report:
    """`samples` were taken at regular intervals, the last when the worker was idle again."""

    soak: Soak
    samples: Sequence[dict[str, float]]
    seconds: float
    left_in_stream: int
    parked: int
    exit_code: int

    @property
    def growth_mb(self) -> float:
        """How much more memory the worker has at the end than when it was sampled first."""
        return self._of("memory, MB")[-1] - self._of("memory, MB")[0]

    def problems(self) -> list[str]:
        """Return what should not be, in words. About memory nothing: how much is too much depends on how long it was."""
        return [*self._growing(), *self._unfinished()]

    def _growing(self) -> Iterator[str]:
        slots = self.soak.concurrency
        for name, most in (
            ("tasks", slots + _OTHER_TASKS),
            ("open requests", slots * _REQUESTS_PER_SLOT),
            ("server: num_waiting", _PULL_REQUESTS),
            ("subscriptions", self._of("subscriptions")[0] + _CHANGING),
            ("server: subscriptions", self._of("server: subscriptions")[0] + _CHANGING),
        ):
            if max(self._of(name)) > most:
                yield f"{name}: {max(self._of(name)):g}, more than {most:g}"

    def _unfinished(self) -> Iterator[str]:
        last = self.samples[-1]
        if self.left_in_stream:
            yield f"{self.left_in_stream} jobs are left in the stream"

        if self.parked != self.soak.failing:
            yield f"{self.parked} dead letters, not {self.soak.failing}"

        if last["completed"] < self.soak.jobs:
            yield f"{last['completed']:g} jobs completed, not {self.soak.jobs}"

        for name in ("open requests", "jobs in hand", "server: num_ack_pending"):
            if last[name]:
                yield f"{name}: {last[name]:g} at the end, when the worker is idle"

        if self.exit_code:
            yield f"the worker ended with {self.exit_code}"

    def __str__(self) -> str:
        soak = self.soak
        rate = soak.total / self.seconds
        lines = [
            f"{soak.backend}: {soak.jobs:,} jobs and {soak.failing:,} failing ones in {self.seconds:.0f} s ({rate:,.0f}/s)",
            *self._table(),
            *(f"WRONG: {problem}" for problem in self.problems()),
        ]
        return "\n".join(lines)

    def _table(self) -> Iterator[str]:
        yield "| " + " | ".join(_HEAD) + " |"
        yield "| --- | --: | --: | --: |"
        for name in self.samples[0]:
            values = self._of(name)
            cells = (_short(value) for value in (values[0], max(values), values[-1]))
            yield f"| {name} | " + " | ".join(cells) + " |"

    def _of(self, name: str) -> list[float]:
        return [sample[name] for sample in self.samples]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
