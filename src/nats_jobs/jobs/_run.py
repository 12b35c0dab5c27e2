"""The blocking form, for a script that is a worker and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Unpack

import anyio

from ..errors import UsageError
from ..events import Event
from ..wire import ConnectOptions
from ._definition import JobDef
from ._processor import job_processor

__all__ = ("run",)


def run(
    *defns: JobDef[Any],
    servers: str | Sequence[str] | None = None,
    backend: Literal["asyncio", "trio"] = "asyncio",
    stop_grace: float = 30.0,
    on_event: Callable[[Event], object] | None = None,
    **options: Unpack[ConnectOptions],
) -> None:
    """Perform the jobs of `defns` until SIGINT or SIGTERM, then stop gracefully and return.

    Args:
        backend: the event loop to run on.
        servers, stop_grace, on_event, **options: see `job_processor`.

    Raises:
        UsageError: no definitions, or no such backend.
        Whatever ends a processor.
    """
    if not defns:
        raise UsageError("run() needs at least one job definition")

    if backend not in ("asyncio", "trio"):
        raise UsageError(f"backend is {backend!r}; 'asyncio' or 'trio' is needed")

    processor = partial(
        job_processor,
        servers,
        stop_signals=(signal.SIGINT, signal.SIGTERM),
        stop_grace=stop_grace,
        on_event=on_event,
        **options,
    )

    async def main() -> None:
        async with processor() as p:
            for defn in defns:
                p.start_soon(defn)

    anyio.run(main, backend=backend)
