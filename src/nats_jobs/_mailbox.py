"""What has arrived for readers that come for it in their own time. Who puts bounds how much there is."""

from __future__ import annotations

from collections import deque
from copy import copy
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

__all__ = ("Mailbox",)

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Items in order, each for one reader. Nothing but `wait` waits.

    Args:
        turn: how many are taken one after the other before the reader lets others have a turn.
    """

    def __init__(self, *, turn: int = 64) -> None:
        self._items: deque[T] = deque()
        self._turn = self._until_turn = turn
        self._error: Exception | None = None
        self._ended = False
        self._arrival: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        self._items.append(item)
        if self._arrival is not None:
            self._wake()

    def fail(self, error: Exception) -> None:
        """Nothing can come any more, and that is an error: raised when the rest has been taken."""
        self._error = self._error or error
        self._wake()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._wake()

    async def wait(self) -> None:
        """Wait until there is an item to `take`. Cancelling loses none.

        While there are items, other tasks do not get a turn at each call.

        Raises:
            anyio.EndOfStream: it has ended, and nothing is left.
            Exception: the error that it failed with, and nothing is left.
        """
        self._until_turn -= 1
        if self._until_turn <= 0:
            self._until_turn = self._turn
            await checkpoint()

        while not self._items:
            await self._wait_arrival()

    def take(self) -> T:
        """Take the first item; there must be one."""
        return self._items.popleft()

    async def _wait_arrival(self) -> None:
        if self._error is not None:
            raise copy(self._error)

        if self._ended:
            raise anyio.EndOfStream

        if self._arrival is None:
            self._arrival = anyio.Event()

        await self._arrival.wait()
        # The wait was a turn for the others.
        self._until_turn = self._turn

    def _wake(self) -> None:
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None
