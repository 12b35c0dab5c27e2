"""`nats-jobs schedule`: list, show and change schedules; print the coming ticks of a rule."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import anyio

from ..processor import JobProcessor, job_processor
from ..scheduler import Schedule, parse_rule
from ._arguments import json_value, moment, number, positive, whole
from ._formatting import printable, report
from ._schedule_formatting import as_json, details, row, tick_as_json, tick_row, ticks_of

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ("add_parser",)

_COUNT = 10

_Action = Callable[[JobProcessor, argparse.Namespace], Awaitable[None]]
# Options of `add` that are fields of a Schedule; what is not given keeps its default.
_FIELDS: dict[str, dict[str, Any]] = {
    "tz": {"metavar": "ZONE", "help": "in which a cron rule is meant (default: UTC)"},
    "catch_up": {
        "choices": ("none", "last", "all"),
        "help": "of ticks that nobody was there for (default: last)",
    },
    "window": {
        "metavar": "SECONDS",
        "type": number,
        "help": "skip missed ticks that are older (default: a day)",
    },
    "overlap": {"choices": ("allow", "skip"), "help": "skip a tick while the job before it is there"},
    "jitter": {"metavar": "SECONDS", "type": number, "help": "let jobs start up to so much later"},
    "start": {"metavar": "WHEN", "type": moment, "help": "no tick before"},
    "end": {"metavar": "WHEN", "type": moment, "help": "no tick after"},
    "limit": {"metavar": "N", "type": positive, "help": "no more than so many jobs"},
    "version": {"metavar": "N", "type": whole, "help": "the higher one stays (default: 0)"},
}


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("schedule", help="look at schedules and change them; the ticks of a rule")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add(actions, "ls", _list, "list all schedules")
    _add_for_one(actions, "show", _show, "show one schedule and its coming ticks")
    _add_declaration(actions)
    _add_for_one(actions, "remove", _remove, "end a schedule")
    pausing = _add_for_one(actions, "pause", _pause, "enqueue no job until it is resumed")
    pausing.add_argument("--note", metavar="TEXT", default="", help="why, for those who wonder")
    _add_for_one(actions, "resume", _resume, "go on with a paused schedule, from now")
    _add_for_one(actions, "fire", _fire, "enqueue one more job now; the ticks stay where they are")
    _add_next(actions)


def _add_declaration(actions: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add_for_one(actions, "add", _declare, "declare a schedule, or replace the one of that id")
    parser.add_argument("rule", metavar="RULE", help="such as '30 2 * * *', '@hourly' or '@every 30s'")
    parser.add_argument("subject", metavar="SUBJECT", help="of the jobs; a stream must take it")
    parser.add_argument("--payload", metavar="JSON", type=json_value, help="of each job (default: null)")
    for name, how in _FIELDS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, **how)


def _add_next(actions: _SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "print the coming ticks of a rule; no server is needed"
    parser = actions.add_parser("next", help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("rule", metavar="RULE", help="such as '30 2 * * *', '@hourly' or '@every 30s'")
    parser.add_argument("--tz", metavar="ZONE", default="UTC", help="of the rule (default: %(default)s)")
    parser.add_argument(
        "--after", metavar="WHEN", type=moment, help="such as 2027-03-28T00:00Z (default: now)"
    )
    parser.add_argument("--count", type=positive, default=_COUNT, help="this many (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on each line")
    parser.set_defaults(command=_next)


def _add_for_one(
    actions: _SubParsersAction[argparse.ArgumentParser], name: str, action: _Action, text: str
) -> argparse.ArgumentParser:
    parser = _add(actions, name, action, text)
    parser.add_argument("id", metavar="ID", help="of the schedule")
    return parser


def _add(
    actions: _SubParsersAction[argparse.ArgumentParser], name: str, action: _Action, text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--server", metavar="URL", help="default: $NATS_URL, else nats://127.0.0.1:4222")
    parser.add_argument("--json", action="store_true", help="one JSON object on each line")
    parser.set_defaults(command=partial(_command, action))
    return parser


def _command(action: _Action, options: argparse.Namespace) -> None:
    try:
        anyio.run(_with_processor, action, options)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def _with_processor(action: _Action, options: argparse.Namespace) -> None:
    async with job_processor(options.server) as processor:
        await action(processor, options)
        await processor.stop()


async def _list(processor: JobProcessor, options: argparse.Namespace) -> None:
    infos = await processor.schedules.list()
    width = max((len(info.id) for info in infos), default=0)
    for info in infos:
        print(as_json(info) if options.json else printable(row(info, width)))

    if not infos and not options.json:
        print("No schedules.")


async def _show(processor: JobProcessor, options: argparse.Namespace) -> None:
    info = await processor.schedules.get(options.id)
    print(as_json(info) if options.json else details(info))


async def _declare(processor: JobProcessor, options: argparse.Namespace) -> None:
    fields = {name: value for name, value in vars(options).items() if name in _FIELDS}
    schedule = Schedule(
        id=options.id, rule=options.rule, target=options.subject, payload=options.payload, **fields
    )
    handle = await processor.start_schedule(schedule)
    # The processes that declare it as well follow what is stored now, and enqueue its jobs.
    await handle.stop()
    print(as_json(await processor.schedules.get(options.id)) if options.json else f"Declared: {options.id}.")


async def _remove(processor: JobProcessor, options: argparse.Namespace) -> None:
    await processor.schedules.remove(options.id)
    report(options.json, f"Removed: {options.id}.", removed=options.id)


async def _pause(processor: JobProcessor, options: argparse.Namespace) -> None:
    await processor.schedules.pause(options.id, note=options.note)
    report(options.json, f"Paused: {options.id}.", paused=options.id)


async def _resume(processor: JobProcessor, options: argparse.Namespace) -> None:
    await processor.schedules.resume(options.id)
    report(options.json, f"Resumed: {options.id}.", resumed=options.id)


async def _fire(processor: JobProcessor, options: argparse.Namespace) -> None:
    enqueued = await processor.schedules.fire(options.id)
    text = f"Enqueued: job {enqueued.sequence} of stream {enqueued.stream}."
    report(options.json, text, stream=enqueued.stream, sequence=enqueued.sequence)


def _next(options: argparse.Namespace) -> None:
    rule = parse_rule(options.rule, options.tz)
    if not options.json:
        print(f"{rule.explain()}.")

    for tick in islice(ticks_of(rule, options.after or datetime.now(UTC)), options.count):
        print(json.dumps(tick_as_json(tick, options.tz)) if options.json else tick_row(tick, options.tz))
