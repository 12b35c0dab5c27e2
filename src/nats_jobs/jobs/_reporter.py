"""Tells what happens to a worker and its deliveries, as events. Costs next to nothing when nobody listens."""

from __future__ import annotations

from typing import Any

from ..dead_letters import StoredMessage
from ..events import JobEvent, WorkerEvent
from ..jetstream import Delivery
from ._emitter import Emitter
from ._setup import Site

__all__ = ("Reporter",)


class Reporter:
    """Fills in what every event of one worker carries."""

    def __init__(self, emitter: Emitter, site: Site) -> None:
        self._emitter = emitter
        self.bind(site)

    def bind(self, site: Site) -> None:
        """Say from now on that the consumer is as `site` tells."""
        self._about: dict[str, Any] = {
            "stream": site.stream,
            "consumer": site.consumer,
            "consumer_config": site.consumer_config,
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
                    id=delivery.headers.get("Nats-Msg-Id") if delivery.has_headers else None,
                    **fields,
                )
            )
