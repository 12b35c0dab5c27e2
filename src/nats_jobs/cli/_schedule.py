"""`nats-jobs schedule`: when a rule has its ticks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from ..scheduler import Rule, parse_rule
from ..units import utc_text
from ._arguments import moment, positive

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ("add_parser",)

_COUNT = 10


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("schedule", help="look at schedules, and at the ticks of a rule")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    text = "print the coming ticks of a rule; no server is needed"
    ticking = actions.add_parser("next", help=text, description=f"{text[0].upper()}{text[1:]}.")
    ticking.add_argument("rule", metavar="RULE", help="such as '30 2 * * *', '@hourly' or '@every 30s'")
    ticking.add_argument("--tz", metavar="ZONE", default="UTC", help="of the rule (default: %(default)s)")
    ticking.add_argument(
        "--after", metavar="WHEN", type=moment, help="such as 2027-03-28T00:00Z (default: now)"
    )
    ticking.add_argument("--count", type=positive, default=_COUNT, help="this many (default: %(default)s)")
    ticking.add_argument("--json", action="store_true", help="one JSON object on each line")
    ticking.set_defaults(command=_next)


def _next(options: argparse.Namespace) -> None:
    rule = parse_rule(options.rule, options.tz)
    if not options.json:
        print(f"{rule.explain()}.")

    for tick in _ticks(rule, options.after or datetime.now(UTC), options.count):
        print(_as_json(tick, options.tz) if options.json else _row(tick, options.tz))


def _ticks(rule: Rule, after: datetime, count: int) -> Iterator[datetime]:
    for _ in range(count):
        tick = rule.next(after)
        if tick is None:
            break

        yield tick
        after = tick


def _as_json(tick: datetime, tz: str) -> str:
    return json.dumps({"tick": utc_text(tick), "local": tick.astimezone(ZoneInfo(tz)).isoformat()})


def _row(tick: datetime, tz: str) -> str:
    local = tick.astimezone(ZoneInfo(tz))
    place = f"{local.isoformat(' ')}  {local:%a}"
    return place if tz == "UTC" else f"{place}  {utc_text(tick)}"
