"""A wall clock that jumps, for several processes at once. The monotonic clock stays as it is.

One process says by how much (`WallClock.jump_to`), the others follow (`follow`): what they read of the time of day,
by `time.time` or `datetime.now`, is off by that.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

_OFFSET = struct.Struct("d")
_SECOND_NS = 1_000_000_000

_true_time, _true_time_ns = time.time, time.time_ns


class WallClock:
    """By how many seconds the time of day is off: one number in a file that all map."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_OFFSET.pack(0.0))

        self.path = path
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _OFFSET.size)

    @property
    def offset(self) -> float:
        seconds: float = _OFFSET.unpack_from(self._shared)[0]
        return seconds

    def jump_to(self, offset: float) -> None:
        """Let the time of day be off by so many seconds from now on, for all that follow."""
        _OFFSET.pack_into(self._shared, 0, offset)


def follow(clock: WallClock) -> None:
    """Let this process tell the time of day by `clock`. What it has imported of the library follows, too."""
    time.time = lambda: _true_time() + clock.offset
    time.time_ns = lambda: _true_time_ns() + int(clock.offset * _SECOND_NS)
    jumping = _jumping_datetime(clock)
    for name, module in list(sys.modules.items()):
        if name.startswith("nats_jobs") and vars(module).get("datetime") is datetime:
            vars(module)["datetime"] = jumping


def _jumping_datetime(clock: WallClock) -> Any:
    # `datetime` itself is written in C, and nothing in it can be replaced.
    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(seconds=clock.offset)

    return Jumping
