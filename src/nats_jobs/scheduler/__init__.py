"""Schedules that fire once, with nobody in charge."""

from ..errors import ScheduleError as ScheduleError
from ._cron import Cron as Cron
from ._every import Every as Every
from ._rules import Rule as Rule, parse_rule as parse_rule

__all__ = ("Cron", "Every", "Rule", "ScheduleError", "parse_rule")
