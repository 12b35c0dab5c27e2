"""What becomes of the ticks that are due: a pure function of the record, the rule and the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from ._function_rule import FunctionRule
from ._record import Record
from ._rules import Rule

__all__ = ("Decision", "Skipped", "decide", "told_until")

# How late a tick may be that somebody was waiting for, and count as on time. Seconds.
_ON_TIME = timedelta(seconds=1)
# Ticks that are told one by one; the rest is told as one stretch.
_MAX_TOLD = 100
_MAX_STEPS = 100_000
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Ticks without a job: one, or all from `tick` to `until`."""

    tick: datetime
    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: skip some ticks, enqueue a job for one, and look again at `next` (never, when it is None)."""

    next: datetime | None
    tick: datetime | None = None
    is_late: bool = False
    skipped: tuple[Skipped, ...] = ()

    @property
    def last(self) -> datetime | None:
        """The last tick that is dealt with by it; None when nothing is to be done."""
        if self.tick is not None or not self.skipped:
            return self.tick

        return self.skipped[-1].until or self.skipped[-1].tick


def decide(record: Record, rule: Rule, now: datetime, watched_since: datetime) -> Decision:
    """Return what is to be done at `now`.

    Args:
        watched_since: from when on somebody is waiting for the ticks: older ones were missed.
    """
    if record.paused or record.removed or record.is_used_up:
        return Decision(None)

    terms = record.terms
    after = max(record.after, terms.start - _INSTANT) if terms.start else record.after
    first = _next(record, rule, after)
    if first is None or first > now:
        return Decision(first)

    return _Due(record, rule, now, watched_since).decision(first)


def told_until(record: Record, rule: Rule, now: datetime, reason: str) -> tuple[Skipped, ...]:
    """Return all ticks that are due, as skipped."""
    first = _next(record, rule, record.after)
    return () if first is None else _Due(record, rule, now, now).told(first, None, reason)


class _Due:
    """At least one tick is due."""

    def __init__(self, record: Record, rule: Rule, now: datetime, watched_since: datetime) -> None:
        self._record = record
        self._terms = record.terms
        self._rule = rule
        self._now = now
        self._watched_since = watched_since
        self._oldest_kept = now - timedelta(seconds=min(self._terms.window, 1e10))

    def decision(self, first: datetime) -> Decision:
        if first < self._oldest_kept:
            kept = _next(self._record, self._rule, self._oldest_kept - _INSTANT)
            skipped = self.told(first, kept, "window")
            if kept is None or kept > self._now:
                return Decision(kept, skipped=skipped)

            return self._joined(skipped, self._decision(kept))

        return self._decision(first)

    def _decision(self, first: datetime) -> Decision:
        """All that are due are young enough."""
        if self._terms.catch_up == "all":
            exhausted = self._record.late_in_a_row >= self._terms.max_catch_up
            if not exhausted or not self._is_late(first):
                return Decision(self._now, first, self._is_late(first))

            return self._newest_only(first, "limit", may_be_late=False)

        return self._newest_only(first, self._terms.catch_up, may_be_late=self._terms.catch_up == "last")

    def _newest_only(self, first: datetime, reason: str, *, may_be_late: bool) -> Decision:
        newest = self._newest(first)
        if may_be_late or not self._is_late(newest):
            return Decision(self._now, newest, self._is_late(newest), self.told(first, newest, reason))

        later = _next(self._record, self._rule, newest)
        return Decision(later, skipped=self.told(first, later, reason))

    def _is_late(self, tick: datetime) -> bool:
        return tick <= self._watched_since or self._now - tick > _ON_TIME

    def _newest(self, tick: datetime) -> datetime:
        """Return the newest tick that is due. A function is asked for one after the other, other rules at any moment."""
        if isinstance(self._rule, FunctionRule):
            *_, newest = self._ticks(tick, None, _MAX_STEPS)
            return newest

        upper = self._now
        while (later := self._rule.next(tick)) is not None and later <= upper and self._is_inside(later):
            middle = later + (upper - later) / 2
            found = self._rule.next(middle)
            if found is not None and found <= self._now and self._is_inside(found):
                tick = found
            else:
                tick, upper = later, middle

        return tick

    def _is_inside(self, tick: datetime) -> bool:
        return self._terms.end is None or tick <= self._terms.end

    def told(self, first: datetime, end: datetime | None, reason: str) -> tuple[Skipped, ...]:
        """Tell the ticks from `first` to the last one that is due and before `end`."""
        told = [Skipped(tick, reason) for tick in self._ticks(first, end, _MAX_TOLD)]
        if len(told) == _MAX_TOLD:
            rest = _next(self._record, self._rule, told[-1].tick)
            if rest is not None and rest <= self._now and (end is None or rest < end):
                return (*told, Skipped(rest, reason, (end or self._now) - _INSTANT))

        return tuple(told)

    def _ticks(self, tick: datetime | None, end: datetime | None, most: int) -> Iterator[datetime]:
        while most and tick is not None and tick <= self._now and (end is None or tick < end):
            yield tick
            most -= 1
            tick = _next(self._record, self._rule, tick)

    @staticmethod
    def _joined(skipped: tuple[Skipped, ...], then: Decision) -> Decision:
        return Decision(then.next, then.tick, then.is_late, (*skipped, *then.skipped))


def _next(record: Record, rule: Rule, after: datetime) -> datetime | None:
    tick = rule.next(after)
    return None if tick is None or (record.terms.end and tick > record.terms.end) else tick
