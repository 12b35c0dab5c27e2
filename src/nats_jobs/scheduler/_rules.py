"""Rules: when a schedule has its ticks. Pure computation; what is stored of a rule is its text."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from ..errors import ScheduleError
from ._cron import Cron, CronRule
from ._every import Every, parse_every
from ._function_rule import FunctionRule, RuleFunction, is_function_text, name_function
from ._zones import find_zone

__all__ = ("Rule", "RuleLike", "parse_rule")

RuleLike = str | Every | Cron | RuleFunction


class Rule(Protocol):
    """The ticks of a schedule, each computed from the one before and from nothing else."""

    @property
    def text(self) -> str:
        """What a record has; `parse_rule(rule.text, tz)` is the same rule, unless it is a function."""
        ...

    def next(self, after: datetime) -> datetime | None:
        """Return the first tick later than `after`, in UTC; None when there is none.

        Raises:
            ScheduleError: `after` has no zone, or the rule is a function that raised or did not go forward.
        """

    def explain(self) -> str:
        """Return the rule as an English sentence."""
        ...


def parse_rule(rule: RuleLike, tz: str | ZoneInfo = "UTC") -> Rule:
    """Return the rule that a text, an `Every`, a `Cron` or a function stands for.

    Args:
        rule: "*/5 * * * *", "0 30 2 * * *" (seconds first), "@hourly", "@every 30s", or one of the others.
        tz: the zone in which a cron rule is meant. An `Every` has none: it counts in UTC.

    Raises:
        ScheduleError: it is no rule, has no tick for ten years, or the zone does not exist.
    """
    zone = find_zone(tz)
    if isinstance(rule, Every):
        return rule

    if isinstance(rule, Cron):
        return CronRule(rule, zone)

    if isinstance(rule, str):
        return _parse_text(rule, zone)

    name_function(rule)  # Refused now, if it has none.
    return FunctionRule(rule, zone)


def _parse_text(text: str, zone: ZoneInfo) -> Rule:
    if text.lstrip().lower().startswith("@every"):
        return parse_every(text)

    if is_function_text(text):
        raise ScheduleError("rule", f"{text!r} can only be followed by a process that declares it")

    return CronRule(Cron(text), zone)
