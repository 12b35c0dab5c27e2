"""Why a job was cut short."""

from __future__ import annotations

import enum

__all__ = ("CancelReason",)


class CancelReason(enum.StrEnum):
    """Why a job was cut short. The first reason wins.

    Each equals its value, `"stop"` and `"timeout"` as in the Node library, which is also what events carry.
    """

    STOP = "stop"
    TIMEOUT = "timeout"
    LEASE_LOST = "lease_lost"
    CANCELLED = "cancelled"

    __str__ = enum.Enum.__str__

    @property
    def text(self) -> str:
        """The sentence in tracebacks."""
        return _TEXTS[self]


_TEXTS = {
    CancelReason.STOP: "the worker is stopping",
    CancelReason.TIMEOUT: "the job ran past its timeout",
    CancelReason.LEASE_LOST: "the job may be with another worker now",
    CancelReason.CANCELLED: "the job was cancelled on request",
}
