"""A processor that is started before its server, or while it restarts."""

from __future__ import annotations

import math
import socket
import time

import anyio
import pytest

from nats_jobs import job_processor
from nats_jobs.errors import AuthorizationFailed, ConnectFailed, UsageError
from nats_jobs.server import run_server
from support.jobs import LIMIT

pytestmark = pytest.mark.anyio


@pytest.fixture
def port() -> int:
    """A port at which nothing answers, until a server is started there."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        number: int = reserved.getsockname()[1]

    return number


async def test_it_waits_for_a_server_that_comes_later(port: int, caplog: pytest.LogCaptureFixture) -> None:
    enqueued = anyio.Event()

    async def produce() -> None:
        async with job_processor(f"nats://127.0.0.1:{port}", wait_for_server=LIMIT) as p:
            await p.js.add_stream(name="ORDERS", subjects=["ORDERS"])
            await p.enqueue("ORDERS", 1)
            enqueued.set()

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            while "trying again" not in caplog.text:
                await anyio.sleep(0.01)

            async with run_server(port=port):
                await enqueued.wait()

    assert caplog.text.count("trying again") == 1


async def test_without_the_option_it_fails_at_once(port: int) -> None:
    with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed):
        async with job_processor(f"nats://127.0.0.1:{port}"):
            pass


async def test_the_wait_has_a_limit(port: int) -> None:
    began = time.monotonic()
    with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed):
        async with job_processor(f"nats://127.0.0.1:{port}", wait_for_server=0.5):
            pass

    assert time.monotonic() - began >= 0.1


async def test_a_refused_password_fails_at_once() -> None:
    config = "authorization { user: u, password: right }"
    async with run_server(config=config) as server:
        with anyio.fail_after(LIMIT), pytest.raises(AuthorizationFailed):
            async with job_processor(server.url, user="u", password="wrong", wait_for_server=10 * LIMIT):
                pass


@pytest.mark.parametrize("odd", [-1, math.inf, math.nan, None, "5"])
async def test_a_wait_that_cannot_be_is_refused(odd: float) -> None:
    with pytest.raises(UsageError, match="wait_for_server"):
        async with job_processor(wait_for_server=odd):
            pass
