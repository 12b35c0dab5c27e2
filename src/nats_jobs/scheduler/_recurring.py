"""Functions that recur: each tick runs them in one process of the fleet, at most once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

from ..errors import ScheduleError
from ..jobs import is_async
from ._rules import RuleLike
from ._schedule import CatchUp, Schedule

__all__ = ("Recurring", "recurring")

_DAY = 86_400.0
# Of no stream: nothing is published there.
_NOWHERE = "nats_jobs.recurring"

Function = Callable[[datetime], Awaitable[object] | object]


@dataclass(frozen=True, eq=False)
class Recurring:
    """A function with its schedule, made by `recurring`. Calling it calls the function."""

    function: Function
    schedule: Schedule[Any]
    timeout: float | None
    run_in: Literal["thread", "process"]

    def __call__(self, tick: datetime) -> Awaitable[object] | object:
        return self.function(tick)

    def __repr__(self) -> str:
        return f"Recurring({self.schedule.id!r}, {getattr(self.function, '__qualname__', self.function)})"


class _Decorator(Protocol):
    def __call__(self, function: Function, /) -> Recurring: ...


def recurring(
    *,
    id: str,
    rule: RuleLike,
    tz: str | ZoneInfo = "UTC",
    timeout: float | None = None,
    run_in: Literal["thread", "process"] = "thread",
    catch_up: CatchUp = "last",
    window: float = _DAY,
    max_catch_up: int = 1_000,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int | None = None,
    version: int = 0,
) -> _Decorator:
    """Have the function below run at each tick, in one process of all that call `p.run_recurring` with it.

        @recurring(id="refresh", rule="*/5 * * * *", timeout=60)
        async def refresh(tick: datetime) -> None: ...

    It is given the tick in UTC. A tick is claimed before the function runs, and never run again, whatever becomes of it;
    for work that must be done at least once, let a `Schedule` enqueue a job. One process runs it once at a time; when
    it runs for longer than the interval, another process may begin the next tick meanwhile.

    Args:
        timeout: seconds until it is cancelled; above 0.
        run_in: where a plain `def` runs.
        id, rule, tz, catch_up, window, max_catch_up, start, end, limit, version: see `Schedule`.

    Raises:
        ScheduleError: a value that cannot work.
    """
    schedule = Schedule[Any](
        id=id,
        rule=rule,
        tz=tz,
        target=_NOWHERE,
        catch_up=catch_up,
        window=window,
        max_catch_up=max_catch_up,
        start=start,
        end=end,
        limit=limit,
        version=version,
    )
    _check_timeout(timeout, id)
    if run_in not in ("thread", "process"):
        raise ScheduleError("run_in", f"{run_in!r} is none of 'thread', 'process'", id)

    def decorate(function: Function) -> Recurring:
        if run_in == "process" and is_async(function):
            raise ScheduleError("run_in", f"{function!r} is async: in a process runs a plain function", id)

        return Recurring(function, schedule, timeout, run_in)

    return decorate


def _check_timeout(timeout: Any, id: str) -> None:
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and timeout > 0):
        raise ScheduleError("timeout", f"{timeout!r}: seconds above 0 are needed", id)
