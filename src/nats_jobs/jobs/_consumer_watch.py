"""Looks whether the consumer is still the one that a worker was bound to, and has still the settings it had.

A stream or consumer that is deleted and created again counts from 1, so what is held of the former one means
other messages now; and an `ack_wait` that somebody edits is the deadline of every lease. The server tells
nobody. So CONSUMER.INFO is asked for, its `created` and its settings are compared: after each new link, when
an advisory, a refusal or a delivery after a quiet time gives a reason, every second while jobs are in hand,
and now and then otherwise. A consumer is deleted with its stream, so its `created` tells of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from .._clock import Clock
from ..backoff import jittered
from ..errors import ApiError, ConsumerGone, NatsJobsError, PermissionDenied, SetupFailed
from ..jetstream import ErrorCode, JetStreamApi, is_retryable
from ..wire import Msg
from ._bound_consumer import BoundConsumer
from ._definition import JobDef
from ._emitter import logger
from ._setup import set_up_again

__all__ = ("ConsumerWatch",)

# Seconds.
_BUSY_INTERVAL = 1.0
_IDLE_INTERVAL = 10.0
_MIN_INTERVAL = 0.1
_MAX_RETRY_INTERVAL = 1.0
_INFO_TIMEOUT = 2.0
# While a consumer is missing, so long those who deleted it may create it again with settings of their own.
_RECREATION_GRACE = 2.0
_RECREATION_INTERVAL = 0.2

_MISSING = (ErrorCode.STREAM_NOT_FOUND, ErrorCode.CONSUMER_NOT_FOUND, ErrorCode.CONSUMER_DOES_NOT_EXIST)


class ConsumerWatch:
    """Watches the consumer of one worker. Callbacks must return at once.

    Args:
        busy: whether any delivery is in hand.
        on_unverified: a new link: whether this is the same consumer is not known yet.
        on_verified: it is, with the settings that are given.
        on_gone: it is not, or there is none.
    """

    def __init__(
        self,
        api: JetStreamApi,
        defn: JobDef[Any],
        consumer: BoundConsumer,
        clock: Clock,
        *,
        busy: Callable[[], bool],
        on_unverified: Callable[[], None],
        on_verified: Callable[[BoundConsumer], None],
        on_gone: Callable[[ConsumerGone], None],
    ) -> None:
        self.consumer = consumer
        self._api = api
        self._defn = defn
        self._clock = clock
        self._busy = busy
        self._on_unverified = on_unverified
        self._on_verified = on_verified
        self._on_gone = on_gone
        self._checked_at = clock()
        self._wanted = anyio.Event()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside of the block, hear of new links and of what the server says about the consumer."""
        lowlevel = self._api.connection.lowlevel
        subject = f"$JS.EVENT.ADVISORY.CONSUMER.{{}}.{self.consumer.stream}.{self.consumer.name}"
        sids = [
            lowlevel.subscribe_nowait(
                subject.format(action), self._on_advisory, on_resubscribed=on_resubscribed
            )
            for action, on_resubscribed in (("DELETED", self._on_new_link), ("CREATED", _ignore))
        ]
        try:
            yield
        finally:
            for sid in sids:
                lowlevel.unsubscribe(sid)

    def check_soon(self) -> None:
        """There is a reason to look now."""
        self._wanted.set()

    def on_delivery(self) -> None:
        """Look if that was not done just now: a delivery counts from the settings of this moment."""
        if self._clock() - self._checked_at > _BUSY_INTERVAL:
            self._wanted.set()

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            ConfigMismatch: the consumer was edited so that jobs cannot be pulled from it any more.
        """
        failures = 0
        while True:
            await self._wait(failures)
            failures = 0 if await self._check() else failures + 1

    async def set_up_again(self, *, patience: float) -> BoundConsumer:
        """Set up the consumer, which is gone, or bind to the one that others have created.

        Args:
            patience: seconds for which each request is tried; while the server cannot answer, all are.

        Raises:
            StreamDeleted: the whole stream is gone.
            ConfigMismatch, SetupFailed: that cannot be.
        """
        while True:
            await self._api.connection.wait_connected()
            await self._wait_recreated()
            try:
                return await set_up_again(self._api, self._defn, patience=patience)
            except SetupFailed as failed:
                if not isinstance(failed.__cause__, NatsJobsError) or not is_retryable(failed.__cause__):
                    raise

    async def _wait_recreated(self) -> None:
        """Give those who deleted the consumer a moment to create it again; return when it is there, or after 2 seconds."""
        with anyio.move_on_after(_RECREATION_GRACE):
            while True:
                try:
                    await self._api.consumer(self.consumer.stream, self.consumer.name)
                    return
                except NatsJobsError:
                    await anyio.sleep(jittered(0, first=_RECREATION_INTERVAL, most=_RECREATION_INTERVAL))

    async def _wait(self, failures: int) -> None:
        await anyio.sleep(_MIN_INTERVAL)
        interval = _BUSY_INTERVAL if self._busy() else _IDLE_INTERVAL
        if failures:
            interval = min(interval, _MAX_RETRY_INTERVAL)

        with anyio.move_on_after(jittered(0, first=interval, most=interval)):
            await self._wanted.wait()

        self._wanted = anyio.Event()

    async def _check(self) -> bool:
        """Whether an answer came."""
        bound = self.consumer
        try:
            with anyio.fail_after(_INFO_TIMEOUT):
                info = await self._api.consumer(bound.stream, bound.name)
        except ApiError as error:
            if error.err_code not in _MISSING:
                return False

            self._found(bound, None)
        except PermissionDenied as error:
            # Then nobody can know; going on is what there was before there was a watch.
            logger.warning(
                "could not check whether consumer %s/%s is still the same: %s",
                bound.stream,
                bound.name,
                error,
            )
            self._on_verified(bound)
        except (NatsJobsError, TimeoutError):
            return False
        else:
            self._found(bound, BoundConsumer.of(self._defn, info, bound.limits.max_age))

        self._checked_at = self._clock()
        return True

    def _found(self, bound: BoundConsumer, now: BoundConsumer | None) -> None:
        if bound is not self.consumer:
            # Bound again while the answer was under way.
            return

        if now is None:
            self._on_gone(ConsumerGone(bound.stream, bound.name, "it does not exist any more"))
        elif now.created != bound.created:
            self._on_gone(
                ConsumerGone(bound.stream, bound.name, "it was deleted, and another one was created")
            )
        else:
            self._on_verified(now)

    def _on_advisory(self, message: Msg) -> None:
        # Anybody may have sent it, and another JetStream domain too: it is a reason to look, and no more.
        self._wanted.set()

    def _on_new_link(self) -> None:
        self._on_unverified()
        self._wanted.set()


def _ignore() -> None:
    pass
