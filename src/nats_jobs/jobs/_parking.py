"""Storing the dead letter of a job: until it is stored, for as long as its lease is held and no stop comes."""

from __future__ import annotations

import anyio

from .. import dead_letters
from .._groups import text_of
from ..backoff import jittered
from ..errors import NatsJobsError
from ..jetstream import JetStreamApi, Settlement
from ._emitter import logger
from ._lease import Lease
from ._lease_keeper import LeaseKeeper

__all__ = ("Parking",)

# Seconds. Storing a letter must not hold up a stop for longer.
_STORE_TIMEOUT = 20.0
# Seconds between two tries; the longest is also when a job that a stop has kept from being parked comes again.
_RETRY_INTERVAL = 0.5
_MAX_RETRY_INTERVAL = 5.0


class Parking:
    """Stores the dead letters of one worker."""

    def __init__(self, api: JetStreamApi, leases: LeaseKeeper, stopping: anyio.Event) -> None:
        self._api = api
        self._leases = leases
        self._stopping = stopping

    async def park(self, lease: Lease, reason: str, error: Exception) -> bool:
        """Publish the dead letter until it is stored.

        False when the lease is lost, or a stop comes, before that. Then the job is handed back, and comes again.
        """
        # Also where the definition leaves extending to its handler, which has ended.
        lease.always_extend = True
        failures = 0
        while self._leases.is_held(lease):
            if await self._stored(lease, reason, error):
                return True

            if self._stopping.is_set():
                break

            with anyio.move_on_after(jittered(failures, first=_RETRY_INTERVAL, most=_MAX_RETRY_INTERVAL)):
                await self._stopping.wait()

            failures += 1

        self._leases.settle(lease, Settlement.nak(_MAX_RETRY_INTERVAL))
        return False

    async def _stored(self, lease: Lease, reason: str, error: Exception) -> bool:
        try:
            # Shielded, and bounded: a stop in this moment would make the job fail once more.
            with anyio.move_on_after(_STORE_TIMEOUT, shield=True):
                await dead_letters.park(self._api, lease.delivery, reason, error)
                return True
        except NatsJobsError as trouble:
            cause = text_of(trouble)
        else:
            cause = f"no answer within {_STORE_TIMEOUT:g} s"

        logger.error(
            "%s/%s could not be stored in %s; this is tried again: %s",
            *(lease.delivery.stream, lease.delivery.sequence, dead_letters.STREAM, cause),
        )
        return False
