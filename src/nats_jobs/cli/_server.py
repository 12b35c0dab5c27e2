"""`nats-jobs server`: an embedded nats-server in the foreground."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

import anyio

from ..errors import MissingExtra, NatsJobsError, ServerFailed
from ..server import Server, run_server

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import AsyncIterator

__all__ = ("add_parser",)

_LOG_INTERVAL = 0.1


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("server", help="run a nats-server with JetStream until interrupted")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=4222, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--store", metavar="DIR", type=Path, help="keep the data here (default: temporary)")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="more configuration; the options above win over it"
    )
    parser.add_argument(
        "--backend", choices=("asyncio", "trio"), default="asyncio", help="(default: %(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="show the server's log on stderr")
    parser.set_defaults(command=_command)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {text!r}")

    return int(text)


def _command(options: argparse.Namespace) -> None:
    if options.backend == "trio" and find_spec("trio") is None:
        raise MissingExtra("--backend trio", "trio")

    anyio.run(_serve, options, backend=options.backend)


async def _serve(options: argparse.Namespace) -> None:
    failure: NatsJobsError | None = None
    # Around everything, so that a second Ctrl-C does not break into the (bounded) stopping.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_asked, signals, tasks.cancel_scope)
            try:
                await _run(options)
            except NatsJobsError as error:
                failure = error  # carried out of the group, which would wrap it

            tasks.cancel_scope.cancel("the server ended")

    if failure is not None:
        raise failure


async def _cancel_when_asked(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    async for sig in signals:
        scope.cancel(f"got {sig.name}")
        return


async def _run(options: argparse.Namespace) -> None:
    # The server reads the file where it is, so that its includes are found and SIGHUP reads it again.
    args = () if options.config is None else ("-c", str(options.config))
    start = partial(run_server, host=options.host, port=options.port, store_dir=options.store, args=args)
    with ExitStack() as afterwards:
        try:
            async with start() as server:
                log = afterwards.enter_context(server.log.open(encoding="utf-8", errors="replace"))
                if options.verbose:
                    afterwards.callback(_pass_on, log)  # what it says while it stops

                _announce(server, kept=options.store is not None)
                code = await _wait_ended(server, log if options.verbose else None)
                raise ServerFailed(f"ended by itself (exit code {code})", server.logs(20))
        except ServerFailed as error:
            raise ServerFailed(error.reason, _fatal_line(error.log)) from error


def _announce(server: Server, *, kept: bool) -> None:
    fate = "" if kept else " (temporary)"
    print(f"nats-server is ready at {server.url}, store {server.store_dir}{fate}", flush=True)


async def _wait_ended(server: Server, log: IO[str] | None) -> int:
    while log is not None and server.running:
        _pass_on(log)
        await anyio.sleep(_LOG_INTERVAL)

    return await server.wait_exited()


def _pass_on(log: IO[str]) -> None:
    sys.stderr.write(log.read())
    sys.stderr.flush()


def _fatal_line(log: str) -> str:
    """The line that says why it ended: the last fatal one, else the last."""
    lines = log.splitlines()
    return next((line for line in reversed(lines) if "[FTL]" in line), lines[-1] if lines else "")
