"""The blocking form, for a script that is a worker and nothing else."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, Unpack

import anyio

from ..errors import MissingExtra, UsageError
from ..events import Event
from ..jobs import JobDef, refuse_in_import
from ..wire import ConnectOptions
from ._opening import job_processor
from ._stop_signals import stopped_by
from ._supervisor import supervise

__all__ = ("run",)

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(
    *defns: JobDef[Any],
    servers: str | Sequence[str] | None = None,
    backend: Literal["asyncio", "trio"] = "asyncio",
    processes: int = 1,
    stop_grace: float = 30.0,
    on_event: Callable[[Event], object] | None = None,
    **options: Unpack[ConnectOptions],
) -> None:
    """Perform the jobs of `defns` until SIGINT or SIGTERM, then stop gracefully and return.

    Args:
        backend: the event loop to run on.
        processes: how many processes do this. With more than one, this process only looks after the
            others: it replaces one that ends, and forwards signals, each once. Leaves with exit code 1 when one of
            them did not end well, with 78 (`os.EX_CONFIG`) when starting them again could not help.
        servers, stop_grace, on_event, **options: see `job_processor`.

    Raises:
        UsageError: no definitions, or no such backend.
        Whatever ends a processor.
    """
    refuse_in_import()
    if not defns:
        raise UsageError("run() needs at least one job definition")

    if backend not in ("asyncio", "trio"):
        raise UsageError(f"backend is {backend!r}; 'asyncio' or 'trio' is needed")

    if backend == "trio" and find_spec("trio") is None:
        raise MissingExtra("backend 'trio'", "trio")

    processor = partial(
        job_processor,
        servers,
        stop_grace=stop_grace,
        on_event=on_event,
        **options,
    )

    async def main(supervised: bool) -> None:
        async with processor() as p, stopped_by(p, _STOP_SIGNALS, supervised=supervised):
            for defn in defns:
                p.start_soon(defn)

            await p.wait_stopped()

    def child() -> None:
        anyio.run(main, True, backend=backend)

    if processes == 1:
        anyio.run(main, False, backend=backend)
    elif code := supervise(child, processes):
        sys.exit(code)
