"""Looks whether the consumer is still the one that a worker was bound to, and has still the settings it had.

A stream or consumer that is deleted and created again counts from 1, so what is held of the former one means
other messages now; and an `ack_wait` that somebody edits is the deadline of every lease. The server tells
nobody. So CONSUMER.INFO is asked for, its `created` and its settings are compared: after each new link, when
an advisory, a refusal or a delivery after a quiet time gives a reason, every second while jobs are in hand,
and now and then otherwise. A consumer is deleted with its stream, so its `created` tells of both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from .._clock import Clock
from ..backoff import jittered
from ..errors import ApiError, ConsumerGone, NatsJobsError, PermissionDenied
from ..jetstream import ErrorCode, JetStreamApi
from ..wire import Msg
from ._definition import JobDef
from ._emitter import logger
from ._setup import Site, site_of

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
        site: Site,
        clock: Clock,
        *,
        busy: Callable[[], bool],
        on_unverified: Callable[[], None],
        on_verified: Callable[[Site], None],
        on_gone: Callable[[ConsumerGone], None],
    ) -> None:
        self.site = site
        self._api = api
        self._defn = defn
        self._clock = clock
        self._busy = busy
        self._on_unverified = on_unverified
        self._on_verified = on_verified
        self._on_gone = on_gone
        self._checked_at = clock()
        self._wanted = anyio.Event()
        lowlevel = api.connection.lowlevel
        self._sids = [
            lowlevel.subscribe_nowait(
                f"$JS.EVENT.ADVISORY.CONSUMER.{action}.{site.stream}.{site.consumer}",
                self._on_advisory,
                on_resubscribed=on_resubscribed,
            )
            for action, on_resubscribed in (("DELETED", self._on_new_link), ("CREATED", _ignore))
        ]

    def close(self) -> None:
        """Hear nothing more."""
        for sid in self._sids:
            self._api.connection.lowlevel.unsubscribe(sid)

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

    async def wait_recreated(self) -> None:
        """Give those who deleted the consumer a moment to create it again; return when it is there, or after 2 seconds."""
        with anyio.move_on_after(_RECREATION_GRACE):
            while True:
                try:
                    await self._api.consumer(self.site.stream, self.site.consumer)
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
        bound = self.site
        try:
            with anyio.fail_after(_INFO_TIMEOUT):
                info = await self._api.consumer(bound.stream, bound.consumer)
        except ApiError as error:
            if error.err_code not in _MISSING:
                return False

            self._found(bound, None)
        except PermissionDenied as error:
            # Then nobody can know; going on is what there was before there was a watch.
            logger.warning(
                "could not check whether consumer %s/%s is still the same: %s",
                bound.stream,
                bound.consumer,
                error,
            )
            self._on_verified(bound)
        except (NatsJobsError, TimeoutError):
            return False
        else:
            self._found(bound, site_of(self._defn, info, bound.limits.max_age))

        self._checked_at = self._clock()
        return True

    def _found(self, bound: Site, now: Site | None) -> None:
        if bound is not self.site:
            # Bound again while the answer was under way.
            return

        if now is None:
            self._on_gone(ConsumerGone(bound.stream, bound.consumer, "it does not exist any more"))
        elif now.created != bound.created:
            self._on_gone(
                ConsumerGone(bound.stream, bound.consumer, "it was deleted, and another one was created")
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
