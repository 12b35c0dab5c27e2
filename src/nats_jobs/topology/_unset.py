"""There is no value, which is not the value None."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ("UNSET", "Unset")


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
