"""One run: servers, a fleet, producers, a nemesis or two; then peace, and the verdict."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
from nats.js.errors import Error as JetStreamError

from nats_jobs import JobProcessor, codecs, job_processor
from nats_jobs.dead_letters import STREAM as DEAD_LETTERS, Header
from nats_jobs.errors import NatsJobsError
from nats_jobs.server import Server
from support.jobs import in_stream, stands, until
from support.wall_clock import WallClock
from support.worker import Ledger

from .checker import judge
from .consumer_faults import ConsumerFaults
from .fleet import Fleet
from .link_faults import LinkFaults
from .nemesis import Nemesis
from .report import Report
from .server_faults import ClusterFaults, ServerFaults
from .site import Site, run_site
from .worker_faults import WorkerFaults
from .workload import Producers, job_for, reason_for

__all__ = ("Scenario", "StalledError", "run_scenario")

T = TypeVar("T")

# A link on which nothing comes back is given up after two or three of these.
_PING_INTERVAL = 1.0
# Seconds between two faults of the consumer: each makes all workers lose what they hold.
_CONSUMER_PAUSE = 2.0
# Seconds. Longer than any fault lasts, with the leases that it leaves behind.
_STALL_AFTER = 45.0


class StalledError(Exception):
    """Jobs are in the stream, and nobody performs them."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Attributes:
    pause: seconds between two faults of the same nemesis.
    pace: seconds between two lots of a producer. A run must last for long enough for many faults.
    limit: seconds after which the run is thought to hang.
    """

    seed: int
    backend: str
    jobs: int
    cluster: bool = False
    workers: int = 3
    concurrency: int = 20
    ack_wait: float = 2.0
    pause: float = 0.5
    pace: float = 0.4
    limit: float = 600.0

    @property
    def stream(self) -> str:
        return f"CHAOS_{self.seed}"

    @property
    def servers(self) -> str:
        return "three nodes" if self.cluster else "one server"

    @property
    def title(self) -> str:
        return f"seed {self.seed} {self.backend}, {self.servers}"


async def run_scenario(scenario: Scenario, folder: Path) -> Report:
    """Run it; what it writes down is left in `folder`. Raises TimeoutError when something hangs."""
    with anyio.fail_after(scenario.limit):
        async with run_site(cluster=scenario.cluster) as site:
            # Who looks on does so past the spoilt links, and can tell at all times.
            async with job_processor(site.urls, reconnect_time_wait=0.5) as onlooker:
                return await _Run(scenario, folder, site, onlooker).run()


class _Run:
    def __init__(self, scenario: Scenario, folder: Path, site: Site, onlooker: JobProcessor) -> None:
        rng = random.Random(scenario.seed)
        self.scenario = scenario
        self.site = site
        self.p = onlooker
        self.ledger = Ledger(folder / "ledger")
        self.jobs = [job_for(number, rng, scenario.ack_wait) for number in range(scenario.jobs)]
        self.producers = Producers(scenario.stream, self.jobs, pace=scenario.pace)
        self.clock = WallClock(folder / "clock")
        self.fleet = self._fleet()
        self.server_faults = self._server_faults()
        self.consumer_faults = ConsumerFaults(onlooker, scenario.stream, scenario.ack_wait)
        self.link_faults = LinkFaults(site.links, scenario.ack_wait)
        self.nemeses = self._nemeses()

    async def run(self) -> Report:
        began = time.monotonic()
        with self.fleet:
            await until(self._stands, self.scenario.limit)
            async with anyio.create_task_group() as watching:
                watching.start_soon(self._watch_for_a_stall)
                await self._fight()
                await until(self._settled, self.scenario.limit)
                watching.cancel_scope.cancel("all is settled")

            await self.fleet.close()

        return await self._report(time.monotonic() - began)

    async def _fight(self) -> None:
        """Have the jobs enqueued and performed while the nemeses are at work."""
        links = [link.url for link in self.site.links]
        async with job_processor(
            links, enqueue_timeout=60, ping_interval=_PING_INTERVAL, reconnect_time_wait=0.5
        ) as p:
            async with anyio.create_task_group() as chaos:
                for nemesis in self.nemeses:
                    chaos.start_soon(nemesis.run)

                await self.producers.run(p)
                await until(self._nearly_all_performed, self.scenario.limit)
                for nemesis in self.nemeses:
                    nemesis.enough()

    async def _watch_for_a_stall(self) -> None:
        """Raise when jobs are in the stream, workers are up, and for long nothing has begun or ended."""
        written, since = -1, time.monotonic()
        while True:
            await anyio.sleep(1)
            now_written = self.ledger.path.stat().st_size if self.ledger.path.exists() else 0
            nothing_to_do = await _known(in_stream(self.p.js, self.scenario.stream), 0) == 0
            if now_written != written or nothing_to_do:
                written, since = now_written, time.monotonic()
            elif time.monotonic() - since > _STALL_AFTER:
                left = await _known(in_stream(self.p.js, self.scenario.stream), -1)
                raise StalledError(
                    f"{left} jobs are in the stream, and nothing has happened for {_STALL_AFTER:g} s"
                )

    async def _report(self, seconds: float) -> Report:
        letters = await _dead_letters(self.p, self.scenario.stream)
        reasons = {job["n"]: reason_for(job) for job in self.jobs}
        verdict = judge(
            self.ledger.read(),
            self.producers.confirmed,
            letters,
            {number: reason for number, reason in reasons.items() if reason is not None},
            self.server_faults.outages + self.consumer_faults.outages,
            self.link_faults.held_up,
            self.scenario.ack_wait,
        )
        return Report(
            title=self.scenario.title,
            seed=self.scenario.seed,
            backend=self.scenario.backend,
            servers=self.scenario.servers,
            seconds=seconds,
            verdict=verdict,
            faults=sum((nemesis.done for nemesis in self.nemeses), Counter[str]()),
            left_in_stream=await in_stream(self.p.js, self.scenario.stream),
            dead_letters=len(letters),
            exit_codes=self.fleet.failed,
            longest_stop=self.fleet.longest_stop,
        )

    def _fleet(self) -> Fleet:
        scenario = self.scenario
        return Fleet(
            self.site.routes,
            scenario.stream,
            self.ledger,
            scenario.workers,
            backend=scenario.backend,
            concurrency=scenario.concurrency,
            ack_wait=scenario.ack_wait,
            grace=scenario.ack_wait / 2,
            backoff=0.2,
            replicas=self.site.replicas,
            ping_interval=_PING_INTERVAL,
            wall_clock=self.clock.path,
        )

    def _server_faults(self) -> ServerFaults | ClusterFaults:
        servers = self.site.servers
        if isinstance(servers, Server):
            return ServerFaults(servers, self.scenario.ack_wait)

        return ClusterFaults(servers, self.p.js, self.scenario.stream, self.scenario.ack_wait)

    def _nemeses(self) -> list[Nemesis]:
        """One for the workers, one for what they depend on, one for their consumer: each does one thing at a time."""
        scenario = self.scenario
        workers = WorkerFaults(self.fleet, self.clock, scenario.ack_wait).all()
        around = self.server_faults.all() + self.link_faults.all()
        return [
            Nemesis(f"{scenario.seed} workers", workers, scenario.pause),
            Nemesis(f"{scenario.seed} around", around, scenario.pause),
            Nemesis(f"{scenario.seed} consumer", self.consumer_faults.all(), _CONSUMER_PAUSE),
        ]

    async def _stands(self) -> bool:
        return await _known(stands(self.p.js, self.scenario.stream), False)

    async def _settled(self) -> bool:
        return await _known(in_stream(self.p.js, self.scenario.stream), -1) == 0

    def _nearly_all_performed(self) -> bool:
        return self.ledger.ended() > 0.9 * len(self.producers.confirmed)


async def _known(answer: Awaitable[T], otherwise: T) -> T:
    """Ask a server that may be down just now."""
    try:
        return await answer
    except (JetStreamError, NatsJobsError):
        return otherwise


async def _dead_letters(p: JobProcessor, stream: str) -> dict[int, str | None]:
    """Return the reason of each dead letter, by the number of its job."""
    info = await p.js.stream_info(DEAD_LETTERS, subjects_filter=f"dead_letters.{stream}.>")
    letters = {}
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        letter = await p.js.get_msg(DEAD_LETTERS, sequence)
        assert letter.data is not None
        number: int = codecs.MSGPACK.decode(letter.data)["n"]
        letters[number] = (letter.headers or {}).get(Header.REASON)

    return letters
