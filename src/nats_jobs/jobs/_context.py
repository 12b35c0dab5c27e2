"""What a processor gives to each of its workers."""

from __future__ import annotations

from dataclasses import dataclass

from ..jetstream import JetStreamApi
from ._emitter import Emitter
from ._middleware import MiddlewareStack
from ._unresponsive import UnresponsivePolicy

__all__ = ("WorkerContext",)


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What the workers of one processor have in common. Times are in seconds."""

    api: JetStreamApi
    emitter: Emitter
    middleware: MiddlewareStack
    stop_grace: float
    enqueue_timeout: float
    patience: UnresponsivePolicy

    processor: object
    """What `Job.processor` is: the workers do not use it themselves."""
