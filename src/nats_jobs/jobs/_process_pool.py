"""The processes that perform the jobs of one worker: kept for the next job, and ended with the worker."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

import anyio

from .._untrusted import parse_json
from ..errors import EncodeError, UsageError
from ._process_child import Setting, find_handler
from ._process_messages import MAX_BYTES, Facts, error_of
from ._process_parent import JobProcess, ProcessEnded

__all__ = ("ProcessPool",)

_WHAT = "what the function of a process returned"

# Seconds that idle processes have, all together, to end by themselves.
_CLOSE_TIMEOUT = 2.0


class ProcessPool:
    """Calls a function, each time in a process; there are as many as calls were under way at once, at most.

    Args:
        function: at the top of a module.
        returns: what it returns is wanted; JSON must be able to carry it.

    Raises:
        UsageError: the function cannot be found by its name.
    """

    def __init__(self, function: Any, *, returns: bool = False) -> None:
        _check_found(function)
        self._setting = Setting(
            function.__module__, function.__qualname__, _how_to_import(function), _log_levels(), returns
        )
        self._idle: list[JobProcess] = []

    async def call(self, argument: object, on_told: Callable[[str], None] | None = None) -> Any:
        """Return what the function returns, or raise what it raises. Cancelling kills its process.

        Args:
            argument: what it is called with.
            on_told: called with what it says by `tell_parent`, as JSON.

        Raises:
            ProcessNotStarted: there is no process for it.
            ProcessEnded: its process has ended by itself.
            EncodeError: the argument cannot be pickled.
            Malformed: what has come back is not JSON.
        """
        try:
            request = pickle.dumps(argument)
        except Exception as error:
            raise EncodeError("pickle, for run_in='process'", f"{type(error).__name__}: {error}") from error

        while True:
            reused = self._take_idle()
            process = reused or await JobProcess.start(self._setting)
            try:
                facts = await process.ask(request, on_told)
            except ProcessEnded as ended:
                await process.kill()
                if reused is not None and not ended.began:
                    # It died while it was idle, which is not this call's fault.
                    continue

                raise
            except BaseException:
                await process.kill()
                raise

            self._idle.append(process)
            if (error_there := error_of(facts)) is not None:
                raise error_there

            return _returned(facts)

    async def close(self) -> None:
        """End the idle processes. Not to be cancelled, but bounded."""
        idle, self._idle = self._idle, []
        for process in idle:
            process.hang_up()

        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            for process in idle:
                await process.wait_ended()

        for process in idle:
            await process.kill()

    def _take_idle(self) -> JobProcess | None:
        return self._idle.pop() if self._idle else None


def _returned(facts: Facts) -> Any:
    value = facts.get("value")
    return None if value is None else parse_json(value, _WHAT, max_bytes=MAX_BYTES)


def _check_found(perform: Any) -> None:
    module, name = perform.__module__, perform.__qualname__
    try:
        found = find_handler(module, name)
    except (AttributeError, ImportError) as error:
        raise UsageError(
            f"run_in is 'process', and {module}.{name} cannot be found by that name: {error}"
        ) from error

    if found != perform:
        raise UsageError(
            f"run_in is 'process', and {module}.{name} is not the function that was given as perform; the process looks it up by this name"
        )


def _how_to_import(perform: Any) -> dict[str, Any]:
    """Return what `multiprocessing.spawn.prepare` needs; nothing of the program's when the handler is not in it."""
    if perform.__module__ != "__main__":
        return {"sys_argv": sys.argv, "dir": os.getcwd()}

    program = sys.modules["__main__"]
    how: dict[str, Any] = {"sys_argv": sys.argv, "dir": os.getcwd()}
    name = getattr(program.__spec__, "name", None)
    path = getattr(program, "__file__", None)
    if name is not None:
        how["init_main_from_name"] = name
    elif path is not None:
        how["init_main_from_path"] = os.path.abspath(path)

    return how


def _log_levels() -> dict[str, int]:
    loggers = {"": logging.getLogger(), **logging.getLogger().manager.loggerDict}
    return {
        name: found.level
        for name, found in loggers.items()
        if isinstance(found, logging.Logger) and found.level != logging.NOTSET
    }
