"""The processes that perform the jobs of one worker: kept for the next job, and ended with the worker."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from typing import Any

import anyio

from ..errors import EncodeError, ProcessDied, UsageError
from ._definition import JobDef
from ._detached_job import DetachedJob
from ._process_child import Setting, find_handler
from ._process_messages import error_of
from ._process_parent import Ended, JobProcess

__all__ = ("ProcessPool",)

# Seconds that idle processes have, all together, to end by themselves.
_CLOSE_TIMEOUT = 2.0


class ProcessPool:
    """Performs jobs, each in a process; there are as many as jobs were performed at once, at most.

    Raises:
        UsageError: the function of the definition cannot be found by its name.
    """

    def __init__(self, defn: JobDef[Any]) -> None:
        perform: Any = defn.perform
        _check_found(perform)
        self._setting = Setting(
            perform.__module__, perform.__qualname__, _how_to_import(perform), _log_levels()
        )
        self._idle: list[JobProcess] = []

    async def perform(self, job: DetachedJob[Any]) -> None:
        """Perform a job, and raise what it raised. Cancelling kills its process.

        Raises:
            ProcessNotStarted: there is no process for it.
            ProcessDied: its process has ended by itself.
            EncodeError: its payload cannot be pickled.
        """
        try:
            request = pickle.dumps(job)
        except Exception as error:
            raise EncodeError("pickle, for run_in='process'", f"{type(error).__name__}: {error}") from error

        while True:
            reused = self._take_idle()
            process = reused or await JobProcess.start(self._setting)
            try:
                facts = await process.ask(request)
            except Ended as ended:
                await process.kill()
                if reused is not None and not ended.began:
                    # It died while it was idle, which is not this job's fault.
                    continue

                raise ProcessDied(job.stream, job.sequence, ended.reason) from None
            except BaseException:
                await process.kill()
                raise

            self._idle.append(process)
            if (error_there := error_of(facts)) is not None:
                raise error_there

            return

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
