"""Several processes that do the same work, and the one that looks after them.

The supervisor is a plain process without an event loop or threads, so it can fork. It starts each child,
replaces one that ends, forwards signals, and ends when all have ended. Only signals move it: they are
blocked and taken one by one with `sigtimedwait`, so none can be missed or come at a bad moment. When it
is killed, its children stop as for a SIGTERM: a new supervisor starts new ones.

Each child has a process group of its own: a Ctrl-C in the terminal comes to the supervisor alone, which
decides what its children get.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._child_process import describe_exit
from .._parent_death import end_with_parent
from ..backoff import jittered
from ..errors import NatsJobsError, UsageError
from ._stop_signals import STOP_AT_ONCE

__all__ = ("supervise",)

_STOP = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = {*_STOP, signal.SIGCHLD}
# Seconds. A child that lived for this long was well; one that ends sooner is replaced later and later.
_HEALTHY_AFTER = 10.0
_MAX_RESTART_DELAY = 10.0

logger = logging.getLogger("nats_jobs")


@dataclass
class _Child:
    pid: int
    started: float


class _Supervisor:
    def __init__(self, work: Callable[[], None], mask: set[signal.Signals]) -> None:
        self._work = work
        self._mask = mask
        self._children: dict[int, _Child] = {}
        self._due: list[float] = []
        self._quick_exits = 0
        self._stopping = False
        self._exit_code = os.EX_OK

    def run(self, processes: int) -> int:
        """Return the exit code: 0 when every child ended well once it was told to stop."""
        self._due = [time.monotonic()] * processes
        while self._children or self._due:
            self._start_due()
            wait = min(self._due, default=time.monotonic() + 60) - time.monotonic()
            received = signal.sigtimedwait(_SIGNALS, max(0.0, wait))
            if received is not None and received.si_signo in _STOP:
                self._forward_stop()

            self._reap()

        return self._exit_code

    def _start_due(self) -> None:
        now = time.monotonic()
        for due in [due for due in self._due if due <= now]:
            self._due.remove(due)
            try:
                self._start()
            except OSError as error:
                self._start_later(f"a worker process could not be started: {error}")

    def _start(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            os._exit(self._run_child() if end_with_parent(supervisor, signal.SIGTERM) else 1)

        self._children[pid] = _Child(pid, time.monotonic())

    def _run_child(self) -> int:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        try:
            self._work()
        except NatsJobsError as error:
            logger.error("%s", error)
            return error.exit_code
        except BaseException:
            logger.exception("a worker process failed")
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

        return os.EX_OK

    def _forward_stop(self) -> None:
        """Tell the children to stop; the second time, to stop at once."""
        number = STOP_AT_ONCE if self._stopping else signal.SIGTERM
        self._stopping = True
        self._due.clear()
        for pid in self._children:
            os.kill(pid, number)

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._on_child_exit(self._children.pop(pid), os.waitstatus_to_exitcode(status))

    def _on_child_exit(self, child: _Child, code: int) -> None:
        if code == os.EX_CONFIG:
            self._exit_code = code
            if not self._stopping:
                # The others would fail in the same way.
                self._forward_stop()
        elif self._stopping:
            # By our signals a child dies only when it had not begun to work.
            ended_well = code in (os.EX_OK, -signal.SIGTERM, -STOP_AT_ONCE)
            self._exit_code = self._exit_code or int(not ended_well)
        else:
            lived = time.monotonic() - child.started
            self._quick_exits = self._quick_exits + 1 if lived < _HEALTHY_AFTER else 0
            self._start_later(f"worker process {child.pid} ended by itself ({describe_exit(code)})")

    def _start_later(self, reason: str) -> None:
        delay = jittered(self._quick_exits, first=0.1, most=_MAX_RESTART_DELAY)
        logger.error("%s; another one starts in %.1f s", reason, delay)
        self._due.append(time.monotonic() + delay)


def supervise(work: Callable[[], None], processes: Any) -> int:
    """Run `work` in that many child processes, until SIGINT or SIGTERM has stopped them.

    A child that ends by itself is replaced, the sooner it ended the later. One whose configuration cannot work
    ends them all. Main thread only; call it before an event loop or a thread is started.

    Returns:
        The exit code: 0 when every child ended well, `os.EX_CONFIG` when starting again cannot help, else 1.

    Raises:
        UsageError: not a number of processes, or this system cannot fork.
    """
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise UsageError(f"processes is {processes!r}; a whole number, 1 or more, is needed")

    if not hasattr(os, "fork") or not hasattr(signal, "sigtimedwait"):
        raise UsageError("several processes need a system that can fork and wait for signals, such as Linux")

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        return _Supervisor(work, {signal.Signals(number) for number in mask}).run(processes)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
