"""Sending jobs on their route, every one confirmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ..errors import EnqueueFailed, NatsJobsError, NotConfirmed, PublishRefused
from ..jetstream import BatchMessage, Enqueued, publish, publish_all_or_none, publish_many
from ..wire import Connection
from ._route import Route

__all__ = ("Encoded", "Sender")

Encoded: TypeAlias = tuple[bytes, bytes]
"""The id of a job, and its payload."""


class Sender:
    """Sends jobs, and waits until the server has confirmed them. Cancelling leaves open which were stored.

    Args:
        timeout: seconds for which a job is sent again while the server cannot store it.
        on_failure: called when one was not stored: the stream may not be any more what its route was made for.
    """

    def __init__(self, connection: Connection, *, timeout: float, on_failure: Callable[[], None]) -> None:
        self._connection = connection
        self._timeout = timeout
        self._on_failure = on_failure

    async def send(self, route: Route, job: Encoded) -> Enqueued:
        id, data = job
        subject, block = route.address(id)
        try:
            ack = await publish(self._connection, subject, block, data, timeout=self._timeout)
        except (PublishRefused, NotConfirmed) as error:
            if earlier := route.earlier(error, id):
                return earlier

            self._on_failure()
            raise

        return route.confirmed(ack, id, data)

    async def send_many(self, route: Route, jobs: Sequence[Encoded]) -> list[Enqueued]:
        """Send many at a time, and return their confirmations in the same order.

        Raises:
            EnqueueFailed: some were not confirmed.
        """
        messages = ((*route.address(id), data) for id, data in jobs)
        stored, failures = await publish_many(self._connection, messages, timeout=self._timeout)
        for position, error in list(failures.items()):
            if earlier := route.earlier(error, jobs[position][0]):
                stored[position] = earlier
                del failures[position]

        if failures:
            self._on_failure()
            raise EnqueueFailed(dict(sorted(failures.items())), len(jobs))

        return [route.confirmed(stored[position], *job) for position, job in enumerate(jobs)]

    async def send_all_or_none(self, route: Route, jobs: Sequence[Encoded]) -> list[Enqueued]:
        """Send them as one batch, which the stream must be known to take.

        Raises:
            PublishRefused and others: none was stored.
            NotConfirmed: none, or all, were stored.
        """
        messages = [BatchMessage(*route.address(id), data) for id, data in jobs]
        try:
            stored = await publish_all_or_none(self._connection, messages, timeout=self._timeout)
        except NatsJobsError:
            self._on_failure()
            raise

        return [route.confirmed(ack, *job) for ack, job in zip(stored, jobs, strict=True)]
