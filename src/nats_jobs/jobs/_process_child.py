"""The process of jobs: performs what it is sent, one job after the other, and says how each ended.

SIGINT and SIGTERM do nothing here: they may come to all processes of a unit, and what a stop means for a running
job is decided by the worker, which kills this process when its job is cut short.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import spawn
from typing import Any, BinaryIO

from .._parent_death import end_with_parent
from ..errors import UsageError
from ._process_messages import Facts, as_message, facts_of, log_facts
from ._unfinished import refuse_unfinished

__all__ = ("Setting", "find_handler", "main", "refuse_in_import", "tell_parent")

IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_LENGTH = struct.Struct(">I")
_importing = threading.Event()


@dataclass(frozen=True)
class Setting:
    """What the process is to be like, and the function that it is for."""

    module: str
    name: str
    main: dict[str, Any]
    """As `multiprocessing` has it: how to import the program, without its `if __name__ == "__main__"`."""

    log_levels: dict[str, int]

    returns: bool = False
    """Whether what the function returns is sent back, as JSON."""


def find_handler(module: str, name: str) -> Any:
    """Return the function that is at `name` in a module.

    What a decorator such as `@job` has put in its place says with `__handler__` which function that was.
    """
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)

    return getattr(found, "__handler__", found)


def refuse_in_import() -> None:
    """Refuse to work when a process of jobs imports the program, which is not guarded."""
    if _importing.is_set():
        raise UsageError(
            'the process of a job imports this program: put the code that starts it below `if __name__ == "__main__":`'
        )


def main() -> None:
    """Run until the worker closes its end. The arguments: sys.path as JSON, the worker's process id, where to answer."""
    if not end_with_parent(int(sys.argv[2]), signal.SIGKILL):
        return

    _ignore_signals()
    replies = _Replies(int(sys.argv[3]))
    requests = _requests()
    try:
        setting: Setting = pickle.loads(next(requests))
        perform = _prepare(setting, replies)
    except BaseException as error:
        replies.send(facts_of(error))
        return

    _parent.append(replies)
    replies.send({"kind": "ready"})
    for request in requests:
        replies.send({"kind": "started"})
        replies.send(_perform(setting, perform, request))


def tell_parent(value: Any) -> None:
    """Send something to the parent while the function runs, as JSON.

    Raises:
        TypeError, ValueError: JSON cannot carry it.
    """
    (replies,) = _parent
    replies.send({"kind": "told", "value": json.dumps(value, allow_nan=False)})


def _ignore_signals() -> None:
    # Not SIG_IGN, which the programs would inherit that a handler starts.
    for number in IGNORED_SIGNALS:
        signal.signal(number, _do_nothing)

    # Blocked by the worker until here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
    os.register_at_fork(after_in_child=_mind_signals)


def _do_nothing(number: int, frame: object) -> None:
    pass


def _mind_signals() -> None:
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _requests() -> Iterator[bytes]:
    """Take over stdin, which handlers shall find empty."""
    stream: BinaryIO = os.fdopen(os.dup(0), "rb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)

    while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
        yield stream.read(_LENGTH.unpack(head)[0])


@dataclass
class _Replies:
    fd: int
    _lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        os.set_inheritable(self.fd, False)
        # A fork of a handler must not answer for it, nor keep the pipe open.
        os.register_at_fork(after_in_child=self._leave)

    def send(self, facts: Facts) -> None:
        if self.fd < 0:
            return

        left = memoryview(as_message(facts))
        with self._lock:
            while left:
                left = left[os.write(self.fd, left) :]

    def _leave(self) -> None:
        os.close(self.fd)
        self.fd = -1
        self._lock = threading.Lock()


# One, from the moment that the process is ready.
_parent: list[_Replies] = []


def _prepare(setting: Setting, replies: _Replies) -> Callable[[Any], object]:
    _forward_logging(setting.log_levels, replies)
    with _marked_as_importing():
        if setting.main:
            spawn.prepare(setting.main)

        perform: Callable[[Any], object] = find_handler(setting.module, setting.name)
        return perform


@contextmanager
def _marked_as_importing() -> Iterator[None]:
    _importing.set()
    try:
        yield
    finally:
        _importing.clear()


def _perform(setting: Setting, perform: Callable[[Any], object], request: bytes) -> Facts:
    try:
        returned = perform(pickle.loads(request))
        refuse_unfinished(f"{setting.module}.{setting.name}", returned)
        value = {"value": json.dumps(returned, allow_nan=False)} if setting.returns else {}
    except BaseException as error:
        return facts_of(error)
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()

    return {"kind": "returned", **value}


def _forward_logging(levels: dict[str, int], replies: _Replies) -> None:
    logging.getLogger().addHandler(_Forward(replies))
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class _Forward(logging.Handler):
    """Gives each record to the worker, whose handlers decide what becomes of it."""

    def __init__(self, replies: _Replies) -> None:
        super().__init__()
        self._replies = replies

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._replies.send(log_facts(record.name, record.levelno, self.format(record)))
        except Exception:
            self.handleError(record)
