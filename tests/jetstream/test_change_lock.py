"""One at a time changes a stream: the lock that several processes take for that."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import pytest

from nats_jobs.errors import ApiError
from nats_jobs.jetstream import STREAM_OF_LOCKS, JetStreamApi, _change_lock, changing
from nats_jobs.server import run_server
from nats_jobs.wire import connect
from support.jobs import LIMIT

pytestmark = pytest.mark.anyio

DENIED = """
authorization {{
  users: [{{ user: u, password: p, permissions: {{ publish: {{ deny: ["$JS.API.STREAM.CREATE.{stream}"] }} }} }}]
}}
"""


@pytest.fixture
async def apis(url: str) -> AsyncIterator[list[JetStreamApi]]:
    """Of processes that know nothing of each other."""
    async with AsyncExitStack() as stack:
        yield [JetStreamApi(await stack.enter_async_context(connect(url))) for _ in range(4)]


async def test_one_after_the_other_is_inside(apis: list[JetStreamApi], name: str) -> None:
    inside: list[int] = []
    most = 0

    async def change(number: int) -> None:
        nonlocal most
        async with changing(apis[number], name):
            inside.append(number)
            most = max(most, len(inside))
            await anyio.sleep(0.05)
            inside.remove(number)

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            for number in range(len(apis)):
                group.start_soon(change, number)

    assert most == 1


async def test_those_who_change_different_streams_do_not_wait_for_each_other(
    apis: list[JetStreamApi], name: str
) -> None:
    async with changing(apis[0], name), changing(apis[1], f"{name}_B"):
        pass


async def test_who_dies_inside_gives_way_after_a_while(
    apis: list[JetStreamApi], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_change_lock, "_LASTS", 0.5)
    monkeypatch.setattr(_change_lock, "_MAX_WAIT", LIMIT)
    # As if its process was killed: it is never released.
    assert await _change_lock._acquired(apis[0], name)
    with anyio.fail_after(LIMIT):
        async with changing(apis[1], name):
            pass


async def test_an_error_inside_releases_it(apis: list[JetStreamApi], name: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with changing(apis[0], name):
            raise ZeroDivisionError

    with pytest.raises(ApiError):
        await apis[0].consumer(STREAM_OF_LOCKS, name)


async def test_who_may_not_have_it_goes_on_without_and_says_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        run_server(config=DENIED.format(stream=STREAM_OF_LOCKS)) as server,
        connect(server.url, user="u", password="p") as connection,
    ):
        with caplog.at_level(logging.WARNING, "nats_jobs"):
            async with changing(JetStreamApi(connection), name):
                pass

    assert f"stream {name} is changed without a lock" in caplog.text
