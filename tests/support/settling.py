"""Settles a delivery without a lease, and waits for what the server says."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from nats_jobs.jetstream import ACK, Delivery, Settlement, reply_error
from nats_jobs.wire import OnReply, Reply
from support.jobs import LIMIT

__all__ = ("extend", "settle")


async def settle(delivery: Delivery, settlement: Settlement = ACK) -> None:
    """Send it; raise why it was not confirmed."""
    await _confirmed(lambda on_reply: delivery.settle(settlement, on_reply))


async def extend(delivery: Delivery) -> None:
    """Restart the ack deadline. Raises as `settle` does."""
    await _confirmed(delivery.ask_extension)


async def _confirmed(ask: Callable[[OnReply], str]) -> None:
    replies: list[Reply] = []
    replied = anyio.Event()

    def on_reply(reply: Reply) -> None:
        replies.append(reply)
        replied.set()

    ask(on_reply)
    with anyio.fail_after(LIMIT):
        await replied.wait()

    error = reply_error(replies[0])
    if error is not None:
        raise error
