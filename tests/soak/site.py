"""Where a soak takes place: a server with a page of figures, the worker's process, and what the server says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

import nats_jobs
from nats_jobs import JobProcessor
from soak.order import SAMPLE, Soak
from soak.worker import NAME

__all__ = ("Site", "worker_process")

_TESTS = Path(__file__).resolve().parent.parent
_SOURCES = Path(nats_jobs.__file__).absolute().parent.parent
_PATIENCE = 60.0


@contextmanager
def worker_process(url: str, soak: Soak) -> Iterator[subprocess.Popen[bytes]]:
    """Run the worker; it is killed when the block is left, if it still runs."""
    paths = [str(_TESTS), str(_SOURCES), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "soak.worker", url, soak.to_json()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Site:
    """Looks at the worker from outside."""

    p: JobProcessor
    soak: Soak
    monitoring_port: int

    async def sample(self) -> dict[str, float]:
        """Ask the worker and the server for every figure."""
        reply = await self.p.connection.request(SAMPLE, timeout=_PATIENCE)
        return {**json.loads(reply.data), **await self._seen_by_server()}

    async def in_stream(self) -> int:
        return int((await self.p.js.stream_info(self.soak.stream)).state.messages)

    async def _seen_by_server(self) -> dict[str, float]:
        consumer = await self.p.js.consumer_info(self.soak.stream, f"{self.soak.stream}Consumer")
        page = await anyio.to_thread.run_sync(self._connections)
        [connection] = [entry for entry in page["connections"] if entry.get("name") == NAME]
        return {
            "server: num_waiting": consumer.num_waiting or 0,
            "server: num_ack_pending": consumer.num_ack_pending or 0,
            "server: subscriptions": connection["subscriptions"],
            "server: in the stream": await self.in_stream(),
        }

    def _connections(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.monitoring_port}/connz"
        with urllib.request.urlopen(url, timeout=_PATIENCE) as page:
            fields: dict[str, Any] = json.load(page)
            return fields
