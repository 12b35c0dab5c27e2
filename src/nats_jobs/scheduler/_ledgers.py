"""All ledgers that there are: one in each stream with room for schedules, and the bucket."""

from __future__ import annotations

from .. import delays
from .._untrusted import field_of
from ..jetstream import JetStreamApi
from ._batch_ledger import BatchLedger
from ._claim_ledger import ClaimLedger
from ._ledger import Ledger
from ._run_ledger import RunLedger

__all__ = ("all_ledgers",)


async def all_ledgers(api: JetStreamApi) -> list[Ledger]:
    """Return a ledger for each place where records may be."""
    streams = await _streams_with(api, delays.schedules_of("*"))
    ledgers: list[Ledger] = [BatchLedger(api, name) for name in streams if name != ClaimLedger.stream]
    if ClaimLedger.stream in await _streams_with(api, ClaimLedger.subjects):
        ledgers += [ClaimLedger(api), RunLedger(api)]

    return ledgers


async def _streams_with(api: JetStreamApi, subject: str) -> list[str]:
    """Return the streams that take some of the subjects."""
    call = "STREAM.NAMES"
    found: list[str] = []
    while True:
        page = await api.request(call, {"subject": subject, "offset": len(found)})
        names = field_of(page, "streams", list, call, [])
        found += [str(name) for name in names]
        if not names or len(found) >= field_of(page, "total", int, call, 0):
            return found
