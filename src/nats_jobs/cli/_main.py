"""Argument parsing and exit codes. Each command is a module with `add_parser`, which names the function that does it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .._version import __version__
from ..errors import NatsJobsError
from . import _dead_letters, _schedule, _server, _topology, _worker

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of `nats-jobs` and return its exit code.

    0: done, or ended as asked. 1: it failed, and one line on stderr says why; from a worker 78 (`os.EX_CONFIG`)
    when another try cannot help. Wrong usage leaves with `SystemExit(2)`, `--help` and `--version` with
    `SystemExit(0)`, as argparse has it.

    Args:
        argv: the arguments after the program's name; None takes those of the process.
    """
    options = _parser().parse_args(argv)
    try:
        options.command(options)
    except NatsJobsError as error:
        # One line, whatever the text of the error has.
        print(f"nats-jobs: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return error.exit_code if options.is_service else 1

    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nats-jobs", description="Background jobs on NATS JetStream.")
    # A service is started again when it ends, unless its exit code says that this cannot help.
    parser.set_defaults(is_service=False)
    parser.add_argument("--version", action="version", version=f"nats-jobs {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _server.add_parser(commands)
    _worker.add_parser(commands)
    _dead_letters.add_parser(commands)
    _topology.add_parser(commands)
    _schedule.add_parser(commands)
    return parser
