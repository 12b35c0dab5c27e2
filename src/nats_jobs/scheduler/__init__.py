"""Schedules that fire once, with nobody in charge."""

from ..errors import ScheduleError as ScheduleError
from ._cron import Cron as Cron
from ._delayed import Delayed as Delayed, DelayedPayloads as DelayedPayloads
from ._delayed_batches import delayed_batches as delayed_batches
from ._every import Every as Every
from ._handle import ScheduleHandle as ScheduleHandle
from ._recurring import Recurring as Recurring, recurring as recurring
from ._rules import Rule as Rule, parse_rule as parse_rule
from ._schedule import CatchUp as CatchUp, Engine as Engine, Overlap as Overlap, Schedule as Schedule
from ._scheduler import Scheduler as Scheduler
from ._schedules import ScheduleInfo as ScheduleInfo, Schedules as Schedules

__all__ = (
    "CatchUp",
    "Cron",
    "Delayed",
    "DelayedPayloads",
    "Engine",
    "Every",
    "Overlap",
    "Recurring",
    "Rule",
    "Schedule",
    "ScheduleError",
    "ScheduleHandle",
    "ScheduleInfo",
    "Scheduler",
    "Schedules",
    "delayed_batches",
    "parse_rule",
    "recurring",
)
