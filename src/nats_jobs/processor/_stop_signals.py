"""Signals that stop a processor: the first with grace, one that follows at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import anyio

from ..jobs import logger
from ._processor import JobProcessor

__all__ = ("STOP_AT_ONCE", "handled_here_only", "stopped_by")

Handler: TypeAlias = Callable[[int, Any], Any] | int | None

# What a supervisor sends its children when it was told to stop for a second time. SIGINT and SIGTERM may come to a
# child by two ways, from the supervisor and from who signals all processes of a unit; so it does not count those.
STOP_AT_ONCE: int = getattr(signal, "SIGUSR1", 0)

_before_ours: dict[int, Handler] = {}


@asynccontextmanager
async def stopped_by(
    processor: JobProcessor, signals: Sequence[int], *, supervised: bool = False
) -> AsyncIterator[None]:
    """Stop `processor` when one of `signals` comes, and at once when another one follows.

    A supervised process stops at once for `STOP_AT_ONCE` only. Main thread only.
    """
    if not signals:
        yield
        return

    if supervised:
        signals = (*signals, STOP_AT_ONCE)

    async with anyio.create_task_group() as group:
        with (
            handled_here_only(signals),
            anyio.open_signal_receiver(*map(signal.Signals, signals)) as received,
        ):

            async def stop() -> None:
                told = False
                async for number in received:
                    at_once = number == STOP_AT_ONCE if supervised else told
                    logger.info("%s: stopping%s", number.name, " at once" if at_once else "")
                    processor.stop_soon(grace=0 if at_once else None)
                    told = True

            group.start_soon(stop)
            yield
            group.cancel_scope.cancel("the processor has ended")


@contextmanager
def handled_here_only(signals: Sequence[int]) -> Iterator[None]:
    """Keep a process that is forked off inside the block from handling `signals` as we do.

    It would not die of a SIGTERM; and on Python 3.11 its asyncio would tell ours that the signal was for us.
    """
    ours = {number: signal.getsignal(number) for number in signals if number not in _before_ours}
    _before_ours.update(ours)
    try:
        yield
    finally:
        for number in ours:
            del _before_ours[number]


class _Fork(threading.local):
    mask: set[int] | None = None


_fork = _Fork()


def _before_fork() -> None:
    # A signal that comes to the child before its handlers are restored would be lost.
    if _before_ours:
        _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _before_ours)


def _after_fork() -> None:
    if _fork.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)
        _fork.mask = None


def _in_child() -> None:
    if _before_ours:
        signal.set_wakeup_fd(-1)

    for number, handler in _before_ours.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)

    _before_ours.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
