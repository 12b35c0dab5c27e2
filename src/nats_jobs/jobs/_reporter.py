"""Tells what happens to a worker and its deliveries, as events. Costs next to nothing when nobody listens."""

from __future__ import annotations

from typing import Any

from ..dead_letters import StoredMessage
from ..delays import id_in
from ..events import JobEvent, WorkerEvent
from ..jetstream import Delivery
from ._bound_consumer import BoundConsumer
from ._emitter import Emitter

__all__ = ("Reporter",)


class Reporter:
    """Fills in what every event of one worker carries."""

    def __init__(self, emitter: Emitter, consumer: BoundConsumer) -> None:
        self._emitter = emitter
        self.bind(consumer)

    def bind(self, consumer: BoundConsumer) -> None:
        """Say from now on that the consumer is as `consumer` tells."""
        self._about: dict[str, Any] = {
            "stream": consumer.stream,
            "consumer": consumer.name,
            "consumer_config": consumer.config,
        }

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return self._emitter.wanted

    def worker(self, event: type[WorkerEvent], **fields: Any) -> None:
        if self._emitter.wanted:
            self._emitter.emit(event(**self._about, **fields))

    def job(self, event: type[JobEvent], delivery: Delivery | StoredMessage, **fields: Any) -> None:
        if self._emitter.wanted:
            self._emitter.emit(
                event(
                    **self._about,
                    subject=delivery.subject,
                    sequence=delivery.sequence,
                    attempt=delivery.attempt,
                    id=id_in(delivery.headers) if delivery.has_headers else None,
                    **fields,
                )
            )
