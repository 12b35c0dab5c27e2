"""What a user declares: `Schedule`. Frozen, and refused when built if it could not work."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

from ..errors import BadSubject, ScheduleError
from ..jobs import JobDef
from ..wire import check_publish_subject
from ._moments import in_utc
from ._rules import Rule, RuleLike, parse_rule

__all__ = ("CatchUp", "Engine", "Overlap", "Schedule", "check_id", "rule_of")

T = TypeVar("T")

CatchUp: TypeAlias = Literal["none", "last", "all"]
Overlap: TypeAlias = Literal["allow", "skip"]
Engine: TypeAlias = Literal["auto", "ledger"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DAY = 86_400.0
_CHOICES = {
    "catch_up": ("none", "last", "all"),
    "overlap": ("allow", "skip"),
    "engine": ("auto", "ledger"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule(Generic[T]):
    """Enqueues a job at each tick of a rule, once in the whole fleet. `T` is the type of the payload.

    What is stored under `id` is followed by every process that declares it. All durations are seconds.

    Raises:
        ScheduleError: a value that cannot work. It names the field.
    """

    id: str
    """1 to 64 of A-Z, a-z, 0-9, `_` and `-`. The schedule's identity: two declarations of one id are one schedule."""

    rule: RuleLike
    """"*/5 * * * *", "@hourly", `Every(30)`, `Cron(…)`, or a function from a tick to the next one."""

    target: JobDef[T] | str
    """The definition whose jobs are enqueued, or a subject. Its stream is made when it does not exist."""

    payload: T | Callable[[datetime], T] | None = None
    """What each job is given; or a function of the tick. A function is known by its name: only processes that have it
    enqueue its jobs."""

    tz: str | ZoneInfo = "UTC"
    """The time zone in which a cron rule is meant."""

    catch_up: CatchUp = "last"
    """What becomes of ticks that nobody was there for: none is enqueued, the last one, or all of them, oldest first."""

    window: float = _DAY
    """Missed ticks that are older are skipped; above 0."""

    max_catch_up: int = 1_000
    """With `catch_up="all"`, the most ticks that are enqueued late, one after the other; the rest is skipped."""

    overlap: Overlap = "allow"
    """`skip`: no job while the one before it waits or runs."""

    jitter: float = 0.0
    """The job starts up to so much later. The tick does not move."""

    start: datetime | None = None
    """No tick before; aware."""

    end: datetime | None = None
    """No tick after; aware."""

    limit: int | None = None
    """Ends after so many jobs; 1 or more."""

    version: int = 0
    """Of two declarations the higher one stays, in whichever order processes start. Of two that are equal and differ,
    the later one."""

    engine: Engine = "auto"
    """How ticks are kept apart: by a ledger, for now with either value. The server's own schedules are not used."""

    def __post_init__(self) -> None:
        check_id(self.id)
        try:
            _check(self)
        except ScheduleError as error:
            raise ScheduleError(error.field, error.reason, self.id) from None

    def __repr__(self) -> str:
        return f"Schedule(id={self.id!r}, rule={rule_of(self).text!r})"


def check_id(id: Any) -> str:
    """Return `id` if it can name a schedule."""
    if isinstance(id, str) and _ID.fullmatch(id):
        return id

    raise ScheduleError("id", f"{id!r} is none; 1 to 64 of A-Z, a-z, 0-9, '_' and '-' are needed")


def rule_of(schedule: Schedule[Any]) -> Rule:
    """Return the rule that a schedule declares."""
    return parse_rule(schedule.rule, schedule.tz)


def _check(schedule: Schedule[Any]) -> None:
    rule_of(schedule)
    _check_target(schedule.target)
    for field, choices in _CHOICES.items():
        if (value := getattr(schedule, field)) not in choices:
            raise ScheduleError(field, f"{value!r} is none of {', '.join(map(repr, choices))}")

    _check_seconds("window", schedule.window, above_zero=True)
    _check_seconds("jitter", schedule.jitter)
    _check_count("max_catch_up", schedule.max_catch_up, 1)
    _check_count("version", schedule.version, 0)
    if schedule.limit is not None:
        _check_count("limit", schedule.limit, 1)

    for field in ("start", "end"):
        if (moment := getattr(schedule, field)) is not None:
            in_utc(moment, field)

    if schedule.start and schedule.end and schedule.end < schedule.start:
        raise ScheduleError("end", f"{schedule.end} is before start, {schedule.start}")


def _check_target(target: Any) -> None:
    if isinstance(target, JobDef):
        return

    if not isinstance(target, str):
        raise ScheduleError("target", f"{target!r}: a JobDef or a subject is needed")

    try:
        check_publish_subject(target)
    except BadSubject as error:
        raise ScheduleError("target", str(error)) from None


def _check_seconds(field: str, value: Any, *, above_zero: bool = False) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= timedelta.max.total_seconds() or (above_zero and not value):
        least = "above 0" if above_zero else "0 or more"
        raise ScheduleError(field, f"{value!r}: a finite number of seconds, {least}, is needed")


def _check_count(field: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**53:
        raise ScheduleError(field, f"{value!r}: a whole number, {least} or more, is needed")
