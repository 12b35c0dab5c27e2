"""The process of a server: started, and stopped within a limit. Knows nothing of NATS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from .._child_process import Process, wait_exited

__all__ = ("spawn", "stop")

_KILL_TIMEOUT = 5.0


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
    script = Path(__file__).parent.with_name("_parent_death.py")
    return (sys.executable, "-I", "-S", str(script), str(os.getpid()))


async def stop(process: Process, timeout: float) -> None:
    """Ask the process to end; after `timeout` seconds kill it. Cannot be cancelled, but bounded."""
    process.terminate()
    process.send_signal(signal.SIGCONT)  # a paused process would not hear the request

    with anyio.move_on_after(timeout, shield=True):
        await wait_exited(process)

    process.kill()
    with anyio.move_on_after(_KILL_TIMEOUT, shield=True):
        await wait_exited(process)
