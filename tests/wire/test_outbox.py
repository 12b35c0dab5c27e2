"""Room in the outbox: who waits for it is not left waiting when nothing more will be sent."""

from __future__ import annotations

from typing import cast

import anyio
import pytest
from anyio.abc import ByteStream

from nats_jobs.wire._outbox import Outbox
from support.virtual_time import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio


def full_outbox() -> Outbox:
    outbox = Outbox(cast(ByteStream, None), 10)
    assert outbox.write(bytes(11))
    return outbox


async def test_who_waits_for_room_is_woken_when_the_outbox_is_closed() -> None:
    outbox = full_outbox()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(outbox.give_way)

            await anyio.sleep(1)
            outbox.close()


async def test_who_comes_when_the_outbox_is_closed_does_not_wait() -> None:
    outbox = full_outbox()
    outbox.close()
    with anyio.fail_after(5):
        await outbox.give_way()
