"""`nats-jobs worker`: perform the jobs of definitions that are named by module."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..jobs import JobDef
from ..processor import run

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ("add_parser",)


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("worker", help="perform jobs until SIGINT or SIGTERM")
    parser.add_argument(
        "definitions", nargs="+", metavar="MODULE[:NAME]", help="all definitions of a module, or one"
    )
    parser.add_argument(
        "--server", metavar="URL", action="append", help="may be repeated (default: $NATS_URL, or local)"
    )
    parser.add_argument(
        "--backend", choices=("asyncio", "trio"), default="asyncio", help="(default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--grace", type=float, default=30.0, metavar="SECONDS", help="for running jobs after a signal"
    )
    parser.set_defaults(command=_command, is_service=True)


def _command(options: argparse.Namespace) -> None:
    # As `python -m` does: modules of the current folder can be named.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())

    defns = [defn for name in options.definitions for defn in _find(name)]
    run(
        *defns,
        servers=options.server,
        backend=options.backend,
        processes=options.processes,
        stop_grace=options.grace,
    )


def _find(name: str) -> list[JobDef[Any]]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{name}: {error}") from error

    if not attribute:
        defns = [value for value in vars(module).values() if isinstance(value, JobDef)]
        if not defns:
            raise UsageError(
                f"module {module_name} has no job definition; build a JobDef, or put @job above a function"
            )

        return defns

    defn = getattr(module, attribute, None)
    if not isinstance(defn, JobDef):
        raise UsageError(f"{name} is {'nothing' if defn is None else repr(defn)}; a job definition is needed")

    return [defn]
