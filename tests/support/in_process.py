"""Handlers that run in a process of their own: functions at the top of a module that can be imported there."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from nats_jobs import DetachedJob, Reject, Retry, Snooze


def do_nothing(job: DetachedJob[str]) -> None:
    pass


def note_pid(job: DetachedJob[str]) -> None:
    Path(job.payload).write_text(f"{os.getpid()} {job.attempt} {job.sequence}")


def sleep_in_process(job: DetachedJob[str]) -> None:
    Path(job.payload).write_text(str(os.getpid()))
    time.sleep(600)


def fail_in_process(job: DetachedJob[str]) -> None:
    raise ValueError("in the other process")


class OddError(Exception):
    """Cannot be pickled, nor be made again of its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.lock = threading.Lock()


def end_as_told(job: DetachedJob[str]) -> object:
    """End in the way that the payload names."""
    ends: dict[str, Callable[[], object]] = {
        "odd": lambda: raise_(OddError(503, "the bank is closed")),
        "group": lambda: raise_(ExceptionGroup("several", [ValueError("one"), ValueError("two")])),
        "rejected in a group": lambda: raise_(ExceptionGroup("several", [ValueError("x"), Reject("never")])),
        "reject": lambda: raise_(Reject("never")),
        "retry": lambda: raise_(Retry(0.01)),
        "snooze": lambda: raise_(Snooze(0.01)),
        "sys.exit": lambda: sys.exit(3),
        "interrupt": lambda: raise_(KeyboardInterrupt()),
        "os._exit": lambda: os._exit(3),
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "closed": lambda: os.closerange(3, 256),
        "garbage": lambda: [os.write(fd, b"\xff" * 64) for fd in range(3, 256) if is_pipe_for_writing(fd)],
        "coroutine": work,
        "generator": lambda: (number for number in range(3)),
        "async generator": numbers,
        "future": Future,
        "fine": lambda: None,
    }
    if job.attempt > 1 and job.payload in ("retry", "snooze"):
        return None

    return ends[job.payload]()


def raise_(error: BaseException) -> None:
    raise error


async def work() -> None:
    pass


async def numbers() -> AsyncIterator[int]:
    yield 1


def is_pipe_for_writing(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") and bool(
            int(Path(f"/proc/self/fdinfo/{fd}").read_text().split()[3], 8) & os.O_WRONLY
        )
    except OSError:
        return False


def outlive_signals(job: DetachedJob[str]) -> None:
    Path(job.payload).write_text(str(os.getpid()))
    time.sleep(1)
    Path(job.payload).write_text("done")


def say_much(job: DetachedJob[int]) -> None:
    """Print, log and write more than any pipe takes."""
    for number in range(job.payload):
        sys.stdout.write(f"out {'x' * 90}\n")
        sys.stderr.write(f"err {'x' * 90}\n")
        logging.getLogger("app.part").info("logged %d %s", number, "x" * 90)


def start_children(job: DetachedJob[str]) -> None:
    """A program, and a fork, both of which must die of a SIGTERM."""
    program = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    with program:
        assert program.stdout is not None
        program.stdout.readline()
        program.terminate()
        program.wait(20)

    fork = multiprocessing.get_context("fork").Process(target=say_and_sleep, args=(job.payload,))
    fork.start()
    while not Path(job.payload).exists():
        time.sleep(0.01)

    fork.terminate()
    fork.join(20)
    Path(job.payload).write_text(f"{program.returncode} {fork.exitcode}")


def say_and_sleep(file: str) -> None:
    logging.getLogger("app").error("in a fork")
    Path(file).write_text("")
    time.sleep(60)


def leave_a_thread(job: DetachedJob[str]) -> None:
    """A thread that keeps the process from ending by itself."""
    threading.Thread(target=time.sleep, args=(600,)).start()
    Path(job.payload).write_text(str(os.getpid()))


def traced(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def inner(job: Any) -> Any:
        return function(job)

    return inner


@traced
async def wrapped(job: Any) -> None:
    raise AssertionError("nobody awaits this")


class Methods:
    @classmethod
    def of_class(cls, job: DetachedJob[str]) -> None:
        Path(job.payload).write_text(cls.__name__)

    def of_instance(self, job: DetachedJob[str]) -> None:
        pass
