"""One child process: started, waited for, stopped. Knows nothing of NATS.

A plain `Popen` rather than the event loop's own subprocesses: those come with child watchers and, on some loops,
threads, and pid and signals would differ from backend to backend.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import move_on_after, sleep, wait_readable
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("Process", "ending", "spawn", "stop", "wait_exited")

Process = subprocess.Popen[bytes]

_KILL_LIMIT = 5.0
_POLL_INTERVAL = 0.02


def spawn(command: Sequence[str], log: Path) -> Process:
    """Start `command`; what it prints is appended to `log`."""
    # A file, not a pipe: a full pipe that nobody reads would stop the server.
    with log.open("ab") as output:
        return subprocess.Popen(
            (*_tied_to_us(), *command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A Ctrl-C in the terminal is for us alone; the server is stopped in its turn.
            process_group=0,
        )


def _tied_to_us() -> tuple[str, ...]:
    if sys.platform != "linux" or not sys.executable:
        return ()

    # Isolated and without site: it starts in milliseconds, and nothing of the user's is imported.
    script = Path(__file__).parent.with_name("_with_parent.py")
    return (sys.executable, "-I", "-S", str(script), str(os.getpid()))


async def wait_exited(process: Process) -> int:
    """Wait until the process has ended; return its exit code, negative for a signal. Cancelling changes nothing."""
    await checkpoint()
    while (code := process.poll()) is None:
        await _wait_changed(process.pid)

    return code


async def _wait_changed(pid: int) -> None:
    fd = _open_pidfd(pid)
    if fd is None:
        await sleep(_POLL_INTERVAL)
        return

    # One descriptor for each waiter: an event loop lets only one task wait for the same one.
    try:
        await wait_readable(fd)
    finally:
        os.close(fd)


def _open_pidfd(pid: int) -> int | None:
    if sys.platform != "linux":
        return None

    try:
        return os.pidfd_open(pid)
    except OSError:
        return None  # an old kernel, or a sandbox: poll instead


async def stop(process: Process, timeout: float) -> None:
    """Ask the process to end; after `timeout` seconds kill it. Cannot be cancelled, but bounded."""
    process.terminate()
    process.send_signal(signal.SIGCONT)  # a paused process would not hear the request

    with move_on_after(timeout, shield=True):
        await wait_exited(process)

    process.kill()
    with move_on_after(_KILL_LIMIT, shield=True):
        await wait_exited(process)


def ending(code: int) -> str:
    """Say in words what `wait_exited` returned."""
    if code >= 0:
        return f"exit code {code}"

    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"  # a real-time signal has no name
