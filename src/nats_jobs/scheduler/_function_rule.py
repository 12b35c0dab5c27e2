"""Rules that are functions of the user. A record can only name them: who does not have the function cannot follow it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from .._groups import text_of
from ..errors import ScheduleError
from ._moments import in_utc

__all__ = ("FunctionRule", "RuleFunction", "is_function_text", "name_function")

RuleFunction = Callable[[datetime], datetime | None]

_PREFIX = "function "


@dataclass(frozen=True)
class FunctionRule:
    """A function from a tick (or the moment to count from) to the next tick, or to None when there is none.

    It is given an aware datetime in the schedule's zone, and gives an aware datetime in any zone.
    """

    function: RuleFunction
    zone: ZoneInfo

    @property
    def text(self) -> str:
        return name_function(self.function)

    def next(self, after: datetime) -> datetime | None:
        after = in_utc(after, "after")
        tick = self._call(after)
        if tick is None:
            return None

        if not isinstance(tick, datetime) or tick.utcoffset() is None:
            raise ScheduleError("rule", f"{self.text} returned {tick!r}: an aware datetime or None is needed")

        if (tick := tick.astimezone(UTC)) <= after:
            raise ScheduleError("rule", f"{self.text} returned {tick}, which is not later than {after}")

        return tick

    def explain(self) -> str:
        return f"As {self.text} returns"

    def _call(self, after: datetime) -> object:
        try:
            return self.function(after.astimezone(self.zone))
        except Exception as error:
            reason = f"{self.text} raised {type(error).__qualname__}: {text_of(error)}"
            raise ScheduleError("rule", reason) from error


def name_function(function: object) -> str:
    """Return what a record has in place of the function: its module and qualified name.

    Raises:
        ScheduleError: it has no name of its own, or is async.
    """
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if not callable(function) or not module or not name or "<lambda>" in name:
        raise ScheduleError(
            "rule", f"{function!r} has no name of its own to be stored by: use a function made with def"
        )

    if inspect.iscoroutinefunction(function):
        raise ScheduleError(
            "rule", f"{module}.{name} is async: a function that returns the next tick is needed"
        )

    return f"{_PREFIX}{module}:{name}"


def is_function_text(text: str) -> bool:
    """Whether the text of a rule names a function."""
    return text.startswith(_PREFIX)
