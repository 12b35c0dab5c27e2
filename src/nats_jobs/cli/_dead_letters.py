"""`nats-jobs dead-letters`: list, show, redrive and purge parked jobs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from .. import dead_letters
from ..errors import NatsJobsError, UsageError
from ..processor import JobProcessor, job_processor
from . import _formatting as texts
from ._arguments import moment, positive, rate, whole

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ("add_parser",)

_LIMIT = 50

_Action = Callable[[JobProcessor, argparse.Namespace], Awaitable[None]]


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("dead-letters", help="look at parked jobs, give them back, throw them away")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    listing = _add(actions, "list", _list, "list dead letters, the oldest first")
    _add_selection(listing)
    listing.add_argument("--after", metavar="NUMBER", type=whole, default=0, help="only those after this one")
    listing.add_argument("--limit", type=positive, default=_LIMIT, help="this many (default: %(default)s)")
    listing.add_argument("--all", action="store_true", help="without a limit")

    showing = _add(actions, "show", _show, "show one dead letter")
    showing.add_argument("number", metavar="NUMBER", type=positive, help="its number, from the list")

    redriving = _add(actions, "redrive", _redrive, "give dead letters back to their streams")
    _add_choice(redriving)
    redriving.add_argument("--rate", metavar="N", type=rate, help="so many a second at most")
    redriving.add_argument("--limit", type=positive, help="this many at most")

    purging = _add(actions, "purge", _purge, "throw dead letters away")
    _add_choice(purging)


def _add(
    actions: _SubParsersAction[argparse.ArgumentParser], name: str, action: _Action, text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--server", metavar="URL", help="default: $NATS_URL, else nats://127.0.0.1:4222")
    parser.add_argument("--json", action="store_true", help="one JSON object on each line")
    parser.set_defaults(command=partial(_command, action), parser=parser)
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stream", metavar="NAME", help="only jobs of this stream")
    parser.add_argument("--reason", choices=dead_letters.REASONS, help="only those parked for this reason")
    parser.add_argument(
        "--before", metavar="WHEN", type=moment, help="only those parked before, such as 2026-01-31T12:00Z"
    )


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("numbers", metavar="NUMBER", type=positive, nargs="*", help="these ones")
    _add_selection(parser)
    parser.add_argument("--all", action="store_true", help="every one")
    parser.add_argument("--yes", action="store_true", help="really do it, with many at a time")


def _command(action: _Action, options: argparse.Namespace) -> None:
    _check_choice(options)
    try:
        anyio.run(_with_processor, action, options)
    except KeyboardInterrupt:
        # As a shell expects of what Ctrl-C has ended. What was done until then stays done.
        raise SystemExit(130) from None


def _check_choice(options: argparse.Namespace) -> None:
    """Refuse what does not say, or says twice, which letters are meant."""
    if not hasattr(options, "numbers"):
        return

    selects = any(_selection(options).values())
    ways = bool(options.numbers) + bool(selects) + options.all
    if ways != 1:
        options.parser.error("say which: numbers, or --stream, --reason and --before, or --all")

    if options.numbers and (getattr(options, "limit", None) or getattr(options, "rate", None)):
        options.parser.error("--limit and --rate are for many; not with numbers")


async def _with_processor(action: _Action, options: argparse.Namespace) -> None:
    async with job_processor(options.server) as processor:
        await action(processor, options)


async def _list(processor: JobProcessor, options: argparse.Namespace) -> None:
    limit = None if options.all else options.limit
    table = texts.Table()
    listed = 0
    last = 0
    # One more than is shown, to know whether there are more.
    ask_for = None if limit is None else limit + 1
    async for letter in processor.dead_letters.browse(
        **_selection(options), after=options.after, limit=ask_for
    ):
        if listed == limit:
            table.flush()
            print(f"There are more: --after {last} goes on, --all lists them all.", file=sys.stderr)
            break

        listed += 1
        last = letter.sequence
        if options.json:
            print(texts.as_json(letter, payload=False))
        else:
            table.add(texts.table_row(letter))

    table.flush()
    if not listed and not options.json:
        print("No dead letters.")


async def _show(processor: JobProcessor, options: argparse.Namespace) -> None:
    letter = await processor.dead_letters.get(options.number)
    print(texts.as_json(letter, payload=True) if options.json else texts.details(letter))


async def _redrive(processor: JobProcessor, options: argparse.Namespace) -> None:
    if options.numbers:
        for number in options.numbers:
            ack = await processor.dead_letters.redrive(number)
            texts.report(
                options.json,
                f"Dead letter {number} is job {ack.sequence} of stream {ack.stream}.",
                number=number,
                stream=ack.stream,
                sequence=ack.sequence,
                duplicate=ack.duplicate,
            )

        return

    if options.all:
        await _ask_first(processor, options, "redrive")

    outcome = await processor.dead_letters.redrive_many(
        **_selection(options), limit=options.limit, rate=options.rate
    )
    texts.report(options.json, f"Redriven: {outcome.redriven}.", redriven=outcome.redriven, kept=outcome.kept)
    if outcome.kept:
        number, failure = next(iter(outcome.failures.items()))
        raise NatsJobsError(
            f"{outcome.kept} could not be redriven and are kept; the first, number {number}: {failure}"
        )


async def _purge(processor: JobProcessor, options: argparse.Namespace) -> None:
    await _ask_first(processor, options, "purge")
    if options.numbers:
        for number in options.numbers:
            await processor.dead_letters.remove(number)

        purged = len(options.numbers)
    else:
        purged = await processor.dead_letters.purge(**_selection(options))

    texts.report(options.json, f"Purged: {purged}.", purged=purged)


async def _ask_first(processor: JobProcessor, options: argparse.Namespace, what: str) -> None:
    if options.yes:
        return

    count = len(options.numbers) or await processor.dead_letters.count(**_selection(options))
    raise UsageError(f"nothing was done; to {what} {count} dead letters, say --yes as well")


def _selection(options: argparse.Namespace) -> dict[str, Any]:
    return {"stream": options.stream, "reason": options.reason, "before": options.before}
