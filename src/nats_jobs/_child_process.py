"""Waiting for a child process, on every event loop the same way.

A plain `Popen` rather than the event loop's own subprocesses: those come with child watchers and, on some loops,
threads, and pid and signals would differ from backend to backend.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import anyio
from anyio.lowlevel import checkpoint

__all__ = ("Process", "describe_exit", "wait_exited")

Process = subprocess.Popen[bytes]

_POLL_INTERVAL = 0.02


async def wait_exited(process: Process) -> int:
    """Wait until the process has ended; return its exit code, negative for a signal. Cancelling changes nothing."""
    await checkpoint()
    while (code := process.poll()) is None:
        await _wait_changed(process.pid)

    return code


async def _wait_changed(pid: int) -> None:
    fd = _open_pidfd(pid)
    if fd is None:
        await anyio.sleep(_POLL_INTERVAL)
        return

    # One descriptor for each waiter: an event loop lets only one task wait for the same one.
    try:
        await anyio.wait_readable(fd)
    finally:
        os.close(fd)


def _open_pidfd(pid: int) -> int | None:
    if sys.platform != "linux":
        return None

    try:
        return os.pidfd_open(pid)
    except OSError:
        return None  # an old kernel, or a sandbox: poll instead


def describe_exit(code: int) -> str:
    """Say in words what `wait_exited` returned."""
    if code >= 0:
        return f"exit code {code}"

    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"  # a real-time signal has no name
