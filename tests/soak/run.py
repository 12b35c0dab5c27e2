"""One soak: jobs are enqueued as fast as they are performed, and looked at from time to time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial

import anyio

from nats_jobs import job_processor
from nats_jobs.errors import NoResponders
from nats_jobs.server import run_server
from soak.order import SAMPLE, Soak
from soak.report import Report
from soak.site import Site, worker_process
from support.jobs import stands, until
from support.servers import free_port

__all__ = ("run_soak",)

# In the stream: enough to keep the worker busy, however many there are to come.
_BACKLOG = 10_000
_AT_ONCE = 2_000
_LOOK_AGAIN = 0.02
_PATIENCE = 30.0
_LIMIT = 120.0
_LIMIT_PER_JOB = 0.005


async def run_soak(soak: Soak) -> Report:
    """Run it. Raises TimeoutError when something hangs."""
    port = free_port()
    with anyio.fail_after(_LIMIT + soak.total * _LIMIT_PER_JOB):
        async with run_server(args=("--http_port", str(port))) as server, job_processor(server.url) as p:
            with worker_process(server.url, soak) as worker:
                return await _watched(Site(p, soak, port), worker)


async def _watched(site: Site, worker: subprocess.Popen[bytes]) -> Report:
    await until(lambda: _is_there(site))
    since = time.monotonic()
    samples = await _feed(site)
    seconds = time.monotonic() - since
    samples.append(await _idle_sample(site))
    left, parked = await site.in_stream(), await site.p.dead_letters.count(stream=site.soak.stream)
    worker.send_signal(signal.SIGTERM)
    exit_code = await anyio.to_thread.run_sync(partial(worker.wait, _LIMIT))
    return Report(site.soak, samples, seconds, left, parked, exit_code)


async def _is_there(site: Site) -> bool:
    try:
        return await stands(site.p.js, site.soak.stream) and bool(await site.p.connection.request(SAMPLE))
    except NoResponders:
        return False


async def _idle_sample(site: Site) -> dict[str, float]:
    """Sample the worker when its last settlement is confirmed; as it is, when that is not so after a while."""
    with anyio.move_on_after(_PATIENCE):
        while (sample := await site.sample())["open requests"] or sample["jobs in hand"]:
            await anyio.sleep(_LOOK_AGAIN)

        return sample

    return await site.sample()


async def _feed(site: Site) -> list[dict[str, float]]:
    """Enqueue all jobs, but never many more than are performed; return the samples taken until all have ended."""
    soak, samples, sent, ended = site.soak, list[dict[str, float]](), 0, 0
    while ended < soak.total:
        waiting = await site.in_stream()
        ended = sent - waiting
        if ended * soak.samples >= soak.total * (len(samples) + 1):
            samples.append(await site.sample())
            sys.stderr.write(f"{ended:,} of {soak.total:,}: {samples[-1]['memory, MB']:.1f} MB\n")
        elif sent < soak.total and waiting < _BACKLOG:
            sent += len(await site.p.enqueue_many(soak.stream, soak.payloads(sent, _AT_ONCE)))
        else:
            await anyio.sleep(_LOOK_AGAIN)

    return samples
