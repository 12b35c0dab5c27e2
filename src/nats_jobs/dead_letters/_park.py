"""Where spent jobs go: the original message, with headers that say why."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import anyio

from .._groups import text_of
from ..errors import NatsJobsError, NotConfirmed, RemoteError
from ..jetstream import Delivery, Enqueued, JetStreamApi
from ..units import utc_text
from ._headers import STREAM, Header, headers_of_job, one_line, publish_trimmed, subject_of
from ._store import DeadLetterStore, StoredMessage

__all__ = ("park",)

logger = logging.getLogger("nats_jobs")

# Seconds. Together they stay below what a worker gives for parking, 20; a leader election takes 5 to 7.
_FIRST_TIMEOUT = 1.0
_MAKE_TIMEOUT = 3.0
_TIMEOUT = 12.0
_MAX_TEXT = 2000
_MAX_NAME = 200
_SHORT_TEXT = 200


async def park(
    api: JetStreamApi, delivery: Delivery | StoredMessage, reason: str, error: BaseException
) -> None:
    """Publish the dead letter of `delivery` and wait until it is stored. Settling the original comes after.

    Repeating it stores one only: its id is `<stream>:<sequence>`. When headers and payload are more than
    the server takes, what we say is left out: first the history and the end of the error's text, then all
    but reason and id, then everything. The job's own headers and payload are never cut.

    Raises:
        NotConfirmed, PublishRefused, PayloadTooLarge: it is not stored.
    """
    letter = _Parking(api, delivery, reason, error)
    id = f"{delivery.stream}:{delivery.sequence}"
    ack = await letter.send(id)
    if ack.duplicate and not await _is_of(api, ack.sequence, delivery):
        # A stream that was created again counts from 1 again, and another job had this number.
        await letter.send(f"{id}:{letter.enqueued_at}")


class _Parking:
    """A letter that can be sent under one id or another."""

    def __init__(
        self, api: JetStreamApi, delivery: Delivery | StoredMessage, reason: str, error: BaseException
    ) -> None:
        self.enqueued_at = utc_text(delivery.stored_at)
        self._api = api
        self._delivery = delivery
        self._reason = reason
        self._error = error

    async def send(self, id: str) -> Enqueued:
        try:
            return await self._send(id, _FIRST_TIMEOUT)
        except NotConfirmed:
            await self._make_stream_again()
            return await self._send(id, _TIMEOUT)

    async def _make_stream_again(self) -> None:
        """See to it that the stream stands: it may have been deleted while we work."""
        store = DeadLetterStore(self._api)
        try:
            with anyio.move_on_after(_MAKE_TIMEOUT):
                if await store.state() is None:
                    await store.make()
        except NatsJobsError as trouble:
            logger.warning("%s cannot be looked at: %s", STREAM, trouble)

    async def _send(self, id: str, timeout: float) -> Enqueued:
        delivery = self._delivery
        return await publish_trimmed(
            self._api.connection,
            subject_of(delivery.stream, delivery.subject),
            delivery.data,
            headers_of_job(delivery.headers),
            *self._headers(id),
            timeout=timeout,
        )

    def _headers(self, id: str) -> tuple[dict[str, str], ...]:
        """Return everything there is to say, and what to leave out when that is too much."""
        given = self._delivery.headers
        least = {"Nats-Msg-Id": id, Header.REASON: self._reason}
        brief = least | self._facts() | {Header.ERROR: one_line(text_of(self._error), _SHORT_TEXT)}
        original_id = given.get(Header.ORIGINAL_ID) or given.get("Nats-Msg-Id")
        if original_id is not None:
            brief[Header.ORIGINAL_ID] = original_id

        if Header.REDRIVEN in given:
            brief[Header.REDRIVEN] = given[Header.REDRIVEN]

        everything = brief | {Header.ERROR: one_line(text_of(self._error), _MAX_TEXT)}
        if Header.HISTORY in given:
            everything[Header.HISTORY] = given[Header.HISTORY]

        return everything, brief, least

    def _facts(self) -> dict[str, str]:
        delivery = self._delivery
        return {
            "Nats-Expected-Stream": STREAM,
            Header.ERROR_TYPE: one_line(_type_name(self._error), _MAX_NAME),
            Header.ATTEMPTS: str(delivery.attempt),
            Header.STREAM: delivery.stream,
            Header.CONSUMER: delivery.consumer,
            Header.SEQUENCE: str(delivery.sequence),
            Header.SUBJECT: delivery.subject,
            Header.ENQUEUED_AT: self.enqueued_at,
            Header.PARKED_AT: utc_text(datetime.now(UTC)),
        }


def _type_name(error: BaseException) -> str:
    return error.type_name if isinstance(error, RemoteError) else type(error).__qualname__


async def _is_of(api: JetStreamApi, sequence: int, delivery: Delivery | StoredMessage) -> bool:
    """Whether the letter that is there already is of this very delivery; not known of one that was removed since."""
    letter = await DeadLetterStore(api).letter(sequence)
    return (
        letter is not None
        and (letter.stream, letter.original_sequence) == (delivery.stream, delivery.sequence)
        and letter.enqueued_at == delivery.stored_at
    )
