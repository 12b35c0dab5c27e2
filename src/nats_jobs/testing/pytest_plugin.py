"""Fixtures for pytest: a NATS server, and an empty place on it for each test. Loaded by itself when pytest starts.

They are plain fixtures, which tests of AnyIO, pytest-asyncio and pytest-trio use alike. A processor is opened in the
test: `async with job_processor(nats_url) as p`. What a fixture opens may be closed in another task, and no task group
can be left there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from anyio.from_thread import start_blocking_portal

if TYPE_CHECKING:
    from ..server import Server

__all__ = ("nats_server", "nats_url")


@pytest.fixture(scope="session")
def nats_server() -> Iterator[Server]:
    """A nats-server with JetStream, for all tests of this process. It needs the extra `server`."""
    # Whoever runs pytest loads this module; only who asks for a server waits for the rest.
    from ..server import run_server

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(run_server()) as server:
        yield server


@pytest.fixture
def nats_url(nats_server: Server) -> Iterator[str]:
    """The URL of the server. After the test all that JetStream has stored is deleted: streams, key-value, schedules."""
    from ..server import Server

    # Of a fixture of the same name, for instance, that stands for a server with something of worth.
    if not isinstance(nats_server, Server):
        pytest.fail(
            "nats_url deletes all streams after the test, so it takes none but the server of run_server()"
        )

    yield nats_server.url
    if not nats_server.running:
        pytest.fail(
            "this test has ended the server of all tests; open one of its own: async with run_server()"
        )

    with start_blocking_portal() as portal:
        portal.call(_delete_streams, nats_server.url)


async def _delete_streams(url: str) -> None:
    from ..jetstream import JetStreamApi
    from ..wire import connect

    async with connect(url) as connection:
        api = JetStreamApi(connection)
        while names := (await api.request("STREAM.NAMES", {})).get("streams"):
            for name in names:
                await api.request(f"STREAM.DELETE.{name}")
