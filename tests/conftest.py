"""Fixtures for all tests: every async test on both backends, and one real server for the whole run.

uvloop is a third loop for asyncio. Modules whose subject depends on the loop itself (what is read and sent, how
a task is driven) take the `anyio_backend` of `support.loops`, which has all three.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings

from nats_jobs.server import Server, run_server

settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("ci")

# A shell that runs these tests in the background has them ignore it, and every program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count(1)


@pytest.fixture(params=[pytest.param(("asyncio", {}), id="asyncio"), pytest.param(("trio", {}), id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """A nats-server with JetStream for tests that leave it as it was: use streams of your own (`name`).

    `NATS_SERVER_BINARY` names another one than the newest: `nox -s servers` runs the tests marked `smoke` on each.
    """
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            run_server(binary=os.environ.get("NATS_SERVER_BINARY") or None)
        ) as server,
    ):
        yield server


@pytest.fixture
def url(shared_server: Server) -> str:
    return shared_server.url


@pytest.fixture
def name() -> str:
    """A name that no other test uses, for a stream and its subject."""
    return f"TEST_{os.getpid()}_{next(_numbers)}"
