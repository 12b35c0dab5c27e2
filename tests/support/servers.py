"""A nats-server for several tests: started once, by a fixture that is not async itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from anyio.from_thread import start_blocking_portal

from nats_jobs.server import Server, run_server


@contextmanager
def running_server(config: str) -> Iterator[Server]:
    """Run a server without JetStream; it lives in an event loop of its own."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(run_server(config=config, jetstream=False)) as server,
    ):
        yield server


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
