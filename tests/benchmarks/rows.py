"""What is measured: for each work the rows of the table, each a run of ours beside what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from benchmarks.runs import Backend, Run

__all__ = ("BACKENDS", "FULL", "LONG", "QUICK", "WORKS", "Row", "Scale", "Target", "rows_of")

BACKENDS: tuple[Backend, ...] = ("asyncio", "uvloop", "trio")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done in each run: jobs, and seconds of watching."""

    drain: int
    slow_drain: int
    sleepers: int
    enqueue: int
    enqueue_many: int
    latencies: int
    memory: int
    straight: int
    idle: float
    gap: float = 0.01


FULL = Scale(
    drain=20_000,
    slow_drain=4_000,
    sleepers=10_000,
    enqueue=5_000,
    enqueue_many=50_000,
    latencies=500,
    memory=200_000,
    straight=10_000,
    idle=20.0,
)
LONG = replace(FULL, memory=1_000_000)
QUICK = Scale(
    drain=1_000,
    slow_drain=200,
    sleepers=300,
    enqueue=200,
    enqueue_many=2_000,
    latencies=30,
    memory=2_000,
    straight=200,
    idle=0.5,
    gap=0.004,
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What issue 5 asks for: a bound on the figure of the row."""

    bound: float
    at_most: bool = False
    text: str = ""

    def met_by(self, figure: float) -> bool:
        return figure <= self.bound if self.at_most else figure >= self.bound

    def __str__(self) -> str:
        return self.text or f"{'≤' if self.at_most else '≥'} {self.bound:g}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table.

    Attributes:
        what: in words.
        ours: the run that is measured.
        beside: what it is compared with in the same round; None for figures that stand by themselves.
        key: the figure of a run that counts.
        by_ratio: whether the row tells ours divided by what is beside, or ours as it is.
        scale: divides a figure that stands by itself.
    """

    what: str
    ours: Run
    beside: Run | None
    key: str = "rate"
    by_ratio: bool = True
    scale: float = 1.0
    target: Target | None = None


Maker = Callable[[Scale, Backend], Iterable[Row]]


def rows_of(work: str, scale: Scale, backends: Iterable[Backend]) -> list[Row]:
    """Return the rows of one work."""
    return [row for backend in backends for row in WORKS[work](scale, backend)]


def _drain(scale: Scale, backend: Backend) -> Iterable[Row]:
    wanted = {"asyncio": 1.0, "uvloop": 1.2, "trio": 0.8}
    row = _drained("no-op jobs, concurrency 100", backend, scale.drain, 100, Target(bound=wanted[backend]))
    yield row
    # Says more than the rate where others use the machine, too.
    yield replace(row, what="… its CPU time, µs for each job", key="cpu_us", target=None)


def _drain_more(scale: Scale, backend: Backend) -> Iterable[Row]:
    best_peer = Target(bound=0.72, text="3 times the best peer (0.24)")
    yield _drained("no-op jobs, concurrency 10", backend, scale.drain, 10, best_peer)
    yield _drained("no-op jobs, concurrency 1,000", backend, scale.drain, 1000, None)


def _drain_otherwise(scale: Scale, backend: Backend) -> Iterable[Row]:
    yield _drained("… without headers", backend, scale.drain, 100, None, labelled=False)
    yield _drained("… memory stream", backend, scale.drain, 100, None, storage="memory")
    yield _drained("… 4 KiB", backend, scale.drain // 2, 100, None, payload=4096)


def _drained(
    what: str, backend: Backend, n: int, concurrency: int, target: Target | None, **more: object
) -> Row:
    ours = Run(side="works", kind="drain", backend=backend, n=n, concurrency=concurrency, **more)  # type: ignore[arg-type]
    beside = replace(ours, side="reference", backend="asyncio", concurrency=1, labelled=False)
    return Row(what=what, ours=ours, beside=beside, target=target)


def _one_at_a_time(scale: Scale, backend: Backend) -> Iterable[Row]:
    ours = Run(side="works", kind="drain", backend=backend, n=scale.slow_drain, labelled=False)
    yield Row(
        what="no-op jobs, concurrency 1, against two bare round trips",
        ours=ours,
        beside=replace(ours, side="bare"),
        target=Target(bound=0.9),
    )


def _sleepers(scale: Scale, backend: Backend) -> Iterable[Row]:
    ours = Run(side="works", kind="drain", backend=backend, n=scale.sleepers, concurrency=100, sleep=0.01)
    yield Row(
        what="10 ms sleepers, concurrency 100: part of 10,000/s",
        ours=ours,
        beside=replace(ours, side="reference", backend="asyncio", labelled=False),
        by_ratio=False,
        scale=10_000,
        target=Target(bound=0.95),
    )
    # An event loop's timers are late: epoll counts in milliseconds, and rounds up.
    bare = replace(ours, side="bare", kind="sleepers")
    yield Row(what="… against tasks that only sleep", ours=ours, beside=bare, target=Target(bound=0.95))


def _enqueue(scale: Scale, backend: Backend) -> Iterable[Row]:
    ours = Run(side="works", kind="enqueue", backend=backend, n=scale.enqueue)
    bare = replace(ours, side="bare")
    yield Row(
        what="enqueue, against one bare request",
        ours=ours,
        beside=bare,
        target=Target(bound=1 / 1.15, text="≥ 0.87"),
    )


def _enqueue_many(scale: Scale, backend: Backend) -> Iterable[Row]:
    ours = Run(side="works", kind="enqueue_many", backend=backend, n=scale.enqueue_many)
    labelled = replace(ours, side="reference", backend="asyncio")
    bare = replace(labelled, labelled=False)
    large = replace(ours, n=scale.enqueue_many // 5, payload=4096)
    bare_large = replace(bare, n=large.n, payload=large.payload)
    what = "enqueue_many, against publish_async"
    yield Row(what=what, ours=ours, beside=bare, target=Target(bound=4.0))
    yield Row(what="… that sends an id and a content type, too", ours=ours, beside=labelled)
    yield Row(what=what, ours=large, beside=bare_large)


def _latency(scale: Scale, backend: Backend) -> Iterable[Row]:
    ours = Run(
        side="works", kind="latency", backend=backend, n=scale.latencies, concurrency=10, seconds=scale.gap
    )
    beside = replace(ours, side="reference", backend="asyncio", concurrency=1)
    for key in ("p50_ms", "p99_ms"):
        what = f"send to start on an idle worker, {key[:3]} in ms"
        target = Target(bound=1.0, at_most=True)
        yield Row(what=what, ours=ours, beside=beside, key=key, target=target)


def _startup(scale: Scale, backend: Backend) -> Iterable[Row]:
    ours = Run(side="works", kind="startup", backend=backend, n=1)
    beside = replace(ours, side="reference", backend="asyncio", labelled=False)
    yield Row(what="process start to first job, ms", ours=ours, beside=beside, key="startup_ms")


def _memory(scale: Scale, backend: Backend) -> Iterable[Row]:
    ours = Run(side="works", kind="memory", backend=backend, n=scale.memory, concurrency=100)
    yield Row(
        what=f"growth from job {min(10_000, scale.memory):,} to {scale.memory:,}, MB",
        ours=ours,
        beside=replace(ours, side="reference", backend="asyncio", concurrency=1, labelled=False),
        key="growth_mb",
        by_ratio=False,
        target=Target(bound=5.0, at_most=True),
    )


def _straight(scale: Scale, backend: Backend) -> Iterable[Row]:
    few = Run(side="works", kind="drain", backend=backend, n=scale.straight, concurrency=100)
    many = replace(few, n=10 * few.n)
    what = f"rate for {many.n:,} jobs against {few.n:,}"
    yield Row(what=what, ours=many, beside=few, target=Target(bound=1 / 1.15, text="≥ 0.87"))


def _definitions(scale: Scale, backend: Backend) -> Iterable[Row]:
    one = Run(side="works", kind="live", backend=backend, n=scale.drain, concurrency=100)
    one_of_many = replace(one, definitions=50)
    spread = replace(one, definitions=50, busy=50)
    target = Target(bound=0.9)
    yield Row(what="50 definitions, one with jobs, against one", ours=one_of_many, beside=one, target=target)
    yield Row(what="50 definitions, all with jobs, against one", ours=spread, beside=one, target=target)


def _fleet(scale: Scale, backend: Backend) -> Iterable[Row]:
    if backend == "uvloop":
        # The command line knows the two event loops of AnyIO.
        return

    one = Run(side="works", kind="fleet", backend=backend, n=scale.drain, concurrency=100)
    two = replace(one, processes=2)
    yield Row(what="no-op jobs, two processes against one", ours=two, beside=one)


def _idle(scale: Scale, backend: Backend) -> Iterable[Row]:
    ours = Run(side="works", kind="idle", backend=backend, concurrency=10, seconds=scale.idle)
    yield Row(
        what=f"idle worker over {scale.idle:g} s, % of a core",
        ours=ours,
        beside=replace(ours, side="reference", backend="asyncio", concurrency=1),
        key="cpu_percent",
        by_ratio=False,
        target=Target(bound=0.2, at_most=True),
    )


WORKS: dict[str, Maker] = {
    "drain": _drain,
    "drain-more": _drain_more,
    "drain-otherwise": _drain_otherwise,
    "one": _one_at_a_time,
    "sleepers": _sleepers,
    "enqueue": _enqueue,
    "enqueue-many": _enqueue_many,
    "latency": _latency,
    "startup": _startup,
    "memory": _memory,
    "straight": _straight,
    "definitions": _definitions,
    "processes": _fleet,
    "idle": _idle,
}
