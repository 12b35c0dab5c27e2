"""One process of jobs, from the worker's side: started, given jobs, ended; never left behind."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable

import anyio

from .._child_process import Process, describe_exit, wait_exited
from ..errors import Malformed, ProcessNotStarted
from ._emitter import logger
from ._process_child import IGNORED_SIGNALS, Setting
from ._process_messages import Facts, Messages, error_of, framed

__all__ = ("JobProcess", "ProcessEnded")

# Seconds. Importing a program may take long.
_START_TIMEOUT = 60.0
_KILL_TIMEOUT = 5.0
_READ_BYTES = 65536

_PROGRAM = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__package__}._process_child import main; main()"


class ProcessEnded(Exception):
    """The process has ended, or has said something that makes no sense, before it had done what it was sent."""

    def __init__(self, reason: str, *, began: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.began = began


class JobProcess:
    """Made by `start`. Its owner ends it with `kill`; when it is idle, after `hang_up`."""

    def __init__(self, process: Process, replies: int) -> None:
        self._process = process
        self._replies = replies
        self._on_told: Callable[[str], None] = _ignore
        self._messages = Messages()
        self._began = False

    @classmethod
    async def start(cls, setting: Setting) -> JobProcess:
        """Start one; it is ready for a job when this returns.

        Raises:
            ProcessNotStarted: the system has no room for it, it has ended at once, or does not find the handler.
        """
        handler = f"{setting.module}.{setting.name}"
        try:
            process = _spawn()
        except OSError as error:
            raise ProcessNotStarted(handler, str(error)) from error

        try:
            with anyio.fail_after(_START_TIMEOUT):
                facts = await process.ask(pickle.dumps(setting))
        except ProcessEnded as ended:
            await process.kill()
            raise ProcessNotStarted(handler, ended.reason) from ended
        except TimeoutError as error:
            await process.kill()
            raise ProcessNotStarted(handler, f"it was not ready within {_START_TIMEOUT:g} s") from error
        except BaseException:
            await process.kill()
            raise

        if facts["kind"] != "ready":
            await process.kill()
            trouble = error_of(facts)
            raise ProcessNotStarted(handler, f"{facts.get('type', '')}: {trouble}") from trouble

        return process

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    async def ask(self, request: bytes, on_told: Callable[[str], None] | None = None) -> Facts:
        """Send a request, and return what it comes to. Cancelled, or failed, it must be killed.

        Args:
            request: pickled.
            on_told: called with what the function says by the way, as JSON.

        Raises:
            ProcessEnded: it has ended by itself, or answers what cannot be an answer.
        """
        self._began = False
        self._on_told = on_told or _ignore
        facts: Facts | None = None
        reason: str | None = None
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                # Its own children may keep the pipe open.
                await wait_exited(self._process)
                group.cancel_scope.cancel("the process has ended")

            group.start_soon(watch)
            try:
                await self._send(framed(request))
                facts = await self._receive()
            except OSError:
                await anyio.sleep(_KILL_TIMEOUT)
            except Malformed as error:
                reason = str(error)

            group.cancel_scope.cancel("the process has answered")

        if facts is None and reason is None:
            facts, reason = self._drain()

        if facts is None:
            raise ProcessEnded(reason or self._describe_exit(), began=self._began)

        return facts

    async def _send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        fd = self._process.stdin.fileno()
        left = memoryview(message)
        while left:
            try:
                left = left[os.write(fd, left) :]
            except BlockingIOError:
                await anyio.wait_writable(fd)

    async def _receive(self) -> Facts | None:
        while (facts := self._next()) is None:
            await anyio.wait_readable(self._replies)
            if not self._read():
                # It has closed its end; soon it has ended, or else it is killed.
                await anyio.sleep(_KILL_TIMEOUT)
                return None

        return facts

    def _read(self) -> bytes:
        data = os.read(self._replies, _READ_BYTES)
        self._messages.feed(data)
        return data

    def _next(self) -> Facts | None:
        """Return how a request has ended, when that was said; what is said by the way is passed on."""
        while (facts := self._messages.next()) is not None:
            match facts:
                case {"kind": "started"}:
                    self._began = True
                case {"kind": "told", "value": str(value)}:
                    self._on_told(value)
                case {"kind": "log", "name": str(name), "level": int(level), "text": str(text)}:
                    _log(name, level, text)
                case _:
                    return facts

        return None

    def _drain(self) -> tuple[Facts | None, str | None]:
        """Return what it had said before it ended."""
        try:
            while self._read():
                if (facts := self._next()) is not None:
                    return facts, None

            return self._next(), None
        except BlockingIOError:
            return None, None
        except Malformed as error:
            return None, str(error)

    def _describe_exit(self) -> str:
        code = self._process.poll()
        if code is None:
            return "it closed its pipe and went on"

        hint = "; has the system run out of memory?" if code == -signal.SIGKILL else ""
        return f"{describe_exit(code)}{hint}"

    def hang_up(self) -> None:
        """Let it end by itself, when it is idle."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def wait_ended(self) -> None:
        await wait_exited(self._process)

    async def kill(self) -> None:
        """End it, and what it has started in its group. Not to be cancelled, but it takes 5 seconds at most."""
        self.hang_up()
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
            with anyio.move_on_after(_KILL_TIMEOUT, shield=True):
                await wait_exited(self._process)

            if self.running:
                logger.error("process %d of a job was killed and has not ended", self._process.pid)

        if self._replies >= 0:
            os.close(self._replies)
            self._replies = -1


def _ignore(value: str) -> None:
    pass


def _spawn() -> JobProcess:
    replies, theirs = os.pipe()
    os.set_blocking(replies, False)
    # Until it has handlers of its own. It inherits this.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), str(os.getpid()), str(theirs)],
            stdin=subprocess.PIPE,
            bufsize=0,
            pass_fds=[theirs],
            # What a terminal tells its foreground processes is for us alone; and we can kill all that it starts.
            start_new_session=True,
        )
    except BaseException:
        os.close(replies)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(theirs)

    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return JobProcess(process, replies)


def _log(name: str, level: int, text: str) -> None:
    target = logging.getLogger(name)
    if target.isEnabledFor(level):
        target.handle(target.makeRecord(name, level, "(process of a job)", 0, text, (), None))
