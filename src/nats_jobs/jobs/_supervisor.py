"""Several processes that do the same work, and the one that looks after them.

The supervisor is a plain process without an event loop or threads, so it can fork. It starts each child,
starts a dead one again, passes signals on, and ends when all have ended. Only signals move it: they are
blocked and taken one by one with `sigtimedwait`, so none can be missed or come at a bad moment. When it
is killed, its children stop as for a SIGTERM: a new supervisor starts new ones.
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

from .._with_parent import end_with_parent
from ..backoff import jittered
from ..errors import ConfigMismatch, SetupFailed, UsageError

__all__ = ("supervise",)

_STOP = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = {*_STOP, signal.SIGCHLD}
# A child that lived for this long was well; one that dies sooner is started again later and later.
_WELL_AFTER = 10.0
_LONGEST_WAIT = 10.0
# Exit code of a child that would fail in the same way again.
_HOPELESS = 78

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
        self._quick_deaths = 0
        self._stopping = False
        self._failed = False

    def run(self, processes: int) -> bool:
        """Return whether every child ended well once it was told to stop."""
        self._due = [time.monotonic()] * processes
        while self._children or self._due:
            self._start_due()
            wait = min(self._due, default=time.monotonic() + 60) - time.monotonic()
            received = signal.sigtimedwait(_SIGNALS, max(0.0, wait))
            if received is not None and received.si_signo in _STOP:
                self._pass_on(received.si_signo)

            self._reap()

        return not self._failed

    def _start_due(self) -> None:
        now = time.monotonic()
        for due in [due for due in self._due if due <= now]:
            self._due.remove(due)
            self._start()

    def _start(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            os._exit(self._be_a_child() if end_with_parent(supervisor, signal.SIGTERM) else 1)

        self._children[pid] = _Child(pid, time.monotonic())

    def _be_a_child(self) -> int:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        try:
            self._work()
        except (UsageError, ConfigMismatch, SetupFailed) as error:
            logger.error("%s", error)
            return _HOPELESS
        except BaseException:
            logger.exception("a worker process failed")
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

        return 0

    def _pass_on(self, number: int) -> None:
        self._stopping = True
        self._due.clear()
        for pid in self._children:
            os.kill(pid, number)

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._bury(self._children.pop(pid), os.waitstatus_to_exitcode(status))

    def _bury(self, child: _Child, code: int) -> None:
        if code == 0 or self._stopping:
            self._failed |= code != 0
            return

        if code == _HOPELESS:
            # The others would fail in the same way.
            self._failed = True
            self._pass_on(signal.SIGTERM)
            return

        now = time.monotonic()
        self._quick_deaths = self._quick_deaths + 1 if now - child.started < _WELL_AFTER else 0
        wait = jittered(self._quick_deaths, first=0.1, most=_LONGEST_WAIT)
        logger.error(
            "worker process %d ended with code %d; another one starts in %.1f s", child.pid, code, wait
        )
        self._due.append(now + wait)


def supervise(work: Callable[[], None], processes: Any) -> bool:
    """Run `work` in that many child processes, until SIGINT or SIGTERM was passed on to them and they have ended.

    A child that dies is replaced, the sooner it died the later. One that ends by itself is not; one that
    cannot be set up ends them all. Main thread only; call it before an event loop or a thread is started.

    Returns:
        Whether every child ended well.

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
