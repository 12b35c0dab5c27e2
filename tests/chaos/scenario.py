"""One run: a server, a fleet, producers, a nemesis; then peace, and the verdict."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import anyio

from nats_jobs import JobProcessor, codecs, job_processor
from nats_jobs.server import Server, run_server
from support.jobs import until, until_empty
from support.worker import Ledger

from .checker import Verdict, judge
from .nemesis import Fleet, Nemesis
from .workload import Producers, job_for

__all__ = ("Report", "Scenario", "run_scenario")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    seed: int
    backend: str
    jobs: int
    folder: Path
    workers: int = 3
    concurrency: int = 20
    ack_wait: float = 2.0
    pause: float = 1.0
    pace: float = 0.4
    limit: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What happened. `holds` is whether every promise was kept."""

    scenario: Scenario
    verdict: Verdict
    faults: Counter[str]
    left_in_stream: int
    parked: int
    exit_codes: list[int]

    @property
    def holds(self) -> bool:
        return not (self.verdict.lost or self.verdict.overlapping or self.left_in_stream or self.exit_codes)

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        mark = "ok  " if self.holds else "FAIL"
        return (
            f"{mark} seed {self.scenario.seed} {self.scenario.backend}: {self.verdict}, dead letters {self.parked}, "
            f"left {self.left_in_stream}, exit codes {self.exit_codes}, faults: {faults}"
            + "".join(
                f"\n     overlap: {earlier}\n         and: {later}"
                for earlier, later in self.verdict.overlapping
            )
        )


async def run_scenario(scenario: Scenario) -> Report:
    """Run it. Raises TimeoutError when something hangs."""
    with anyio.fail_after(scenario.limit):
        async with run_server() as server:
            return await _run_on(server, scenario)


async def _run_on(server: Server, scenario: Scenario) -> Report:
    stream = f"CHAOS_{scenario.seed}"
    ledger = Ledger(scenario.folder / "ledger")
    rng = random.Random(scenario.seed)
    jobs = [job_for(number, rng, scenario.ack_wait) for number in range(scenario.jobs)]
    producers = Producers(stream, jobs, pace=scenario.pace)
    fleet = Fleet(
        server.url,
        stream,
        ledger,
        scenario.workers,
        backend=scenario.backend,
        concurrency=scenario.concurrency,
        ack_wait=scenario.ack_wait,
        grace=scenario.ack_wait / 2,
        backoff=0.2,
    )
    async with job_processor(server.url, reconnect_time_wait=0.5, enqueue_timeout=60) as p:
        with fleet:
            await until(lambda: ledger.path.exists() and _stands(p, stream), 60)
            nemesis = Nemesis(scenario.seed, fleet, server, ack_wait=scenario.ack_wait, pause=scenario.pause)
            async with anyio.create_task_group() as chaos:
                chaos.start_soon(nemesis.run)
                await producers.run(p)
                await until(lambda: len(ledger.read("end")) > 0.9 * len(producers.confirmed), scenario.limit)
                chaos.cancel_scope.cancel("enough")

            await _heal(server)
            await until_empty(p.js, stream)
            await fleet.close()

        parked = await _parked(p, stream)
        left = (await p.js.stream_info(stream)).state.messages

    return Report(
        scenario=scenario,
        verdict=judge(ledger.read(), producers.confirmed, parked, nemesis.outages, scenario.ack_wait),
        faults=nemesis.done,
        left_in_stream=left,
        parked=len(parked),
        exit_codes=fleet.failed,
    )


async def _stands(p: JobProcessor, stream: str) -> bool:
    return stream in [info.config.name for info in await p.js.streams_info()]


async def _heal(server: Server) -> None:
    if not server.running:
        await server.restart()


async def _parked(p: JobProcessor, stream: str) -> set[int]:
    """Return the numbers of the jobs that are dead letters. Only what asked for it may be one."""
    info = await p.js.stream_info("DEAD_LETTERS", subjects_filter=f"dead_letters.{stream}.>")
    numbers = set()
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        letter = await p.js.get_msg("DEAD_LETTERS", sequence)
        assert letter.data is not None
        job = codecs.MSGPACK.decode(letter.data)
        assert letter.headers is not None
        assert letter.headers["Nats-Jobs-Reason"] == "rejected", letter.headers
        assert job.get("reject")
        numbers.add(job["n"])

    return numbers
