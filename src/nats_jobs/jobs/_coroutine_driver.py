"""Drives a handler's coroutine in context variables of its own, without a task of its own.

A task for each job costs as much as the rest of a small job. What a job needs of a
task is its own `contextvars.Context`, so that what one job sets the next does not see. Both event loops
resume a task by sending into its coroutine; here each such step is run inside the job's context.

Being between the event loop and the handler also tells two things that nobody else can see: that the
handler gives way for the first time, and that one of its steps held the event loop up.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any, Protocol

from .._clock import Clock

__all__ = ("StepListener", "drive")


class StepListener(Protocol):
    """Whose coroutine is driven. Its methods must return at once."""

    @property
    def abandoned(self) -> Exception | None:
        """Not None: it was given up. Its coroutine is dropped at its next step, and this raised instead."""

    def before_step(self, now: float) -> None:
        """It is about to take a step, perhaps after a long pause of the whole process."""

    def first_suspended(self) -> None:
        """It waits for something, for the first time."""

    def step_too_long(self, seconds: float) -> None:
        """One of its steps took longer than it should."""


@types.coroutine
def drive(
    context: Context,
    coroutine: Coroutine[Any, Any, object],
    listener: StepListener,
    clock: Clock,
    longest_step: float,
) -> Generator[Any, Any, object]:
    """Await `coroutine`, every step of it inside `context`, none longer than `longest_step` seconds unnoticed."""
    run = context.run
    step = partial(coroutine.send, None)
    has_given_way = False
    while True:
        began = clock()
        listener.before_step(began)
        try:
            yielded = run(step)
        except StopIteration as stop:
            return stop.value
        finally:
            took = clock() - began
            if took > longest_step:
                listener.step_too_long(took)

        if not has_given_way:
            has_given_way = True
            listener.first_suspended()

        try:
            step = partial(coroutine.send, (yield yielded))
        except GeneratorExit:
            run(coroutine.close)
            raise
        except BaseException as error:
            step = partial(coroutine.throw, error)

        if listener.abandoned is not None:
            run(_drop, coroutine)
            raise listener.abandoned


def _drop(coroutine: Coroutine[Any, Any, object]) -> None:
    try:
        coroutine.close()
    except RuntimeError:
        # It ignored this, too, and will never run again.
        return
