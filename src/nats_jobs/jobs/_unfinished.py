"""Is what a handler returned work that is still to be done? No IO."""

from __future__ import annotations

import inspect
from concurrent.futures import Future

from ..errors import HandlerReturned

__all__ = ("refuse_unfinished",)


def refuse_unfinished(handler: str, returned: object) -> None:
    """Raise when `returned` must be awaited, iterated or waited for: the job is not done.

    Raises:
        HandlerReturned: it is a coroutine or another awaitable, a generator, or a future.
    """
    what = _what(returned)
    if what is None:
        return

    if inspect.iscoroutine(returned):
        # Or Python warns that nobody has awaited it.
        returned.close()

    raise HandlerReturned(handler, what)


def _what(returned: object) -> str | None:
    if inspect.isasyncgen(returned):
        return "an async generator"

    if inspect.isgenerator(returned):
        return "a generator"

    if inspect.isawaitable(returned):
        return f"an awaitable ({type(returned).__name__})"

    return "a future" if isinstance(returned, Future) else None
