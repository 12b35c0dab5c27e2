"""Drives a coroutine in context variables of its own, without a task of its own.

A task for each job costs as much as the rest of a small job (DESIGN.md section 9). What a job needs of a
task is its own `contextvars.Context`, so that what one job sets the next does not see. Both event loops
resume a task by sending into its coroutine; here each such step is run inside the job's context.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any

__all__ = ("in_context",)


@types.coroutine
def in_context(
    context: Context, coroutine: Coroutine[Any, Any, object], on_suspend: Callable[[], None]
) -> Generator[Any, Any, object]:
    """Await `coroutine` with every step inside `context`. `on_suspend` is called when it first gives way."""
    run, send = context.run, coroutine.send
    try:
        yielded = run(send, None)
    except StopIteration as stop:
        return stop.value

    on_suspend()
    while True:
        try:
            step = partial(send, (yield yielded))
        except GeneratorExit:
            run(coroutine.close)
            raise
        except BaseException as error:
            step = partial(coroutine.throw, error)

        try:
            yielded = run(step)
        except StopIteration as stop:
            return stop.value
