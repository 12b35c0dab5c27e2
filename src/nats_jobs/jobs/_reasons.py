"""Why a job was cut short."""

from __future__ import annotations

import enum

__all__ = ("CancelReason",)


class CancelReason(enum.Enum):
    """Why a job was cut short. The first reason wins. The value is the text in tracebacks."""

    STOP = "the worker is stopping"
    TIMEOUT = "the job ran past its timeout"
    LEASE_LOST = "the job may be with another worker now"
    CANCELLED = "the job was cancelled on request"
