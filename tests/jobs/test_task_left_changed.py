"""Jobs share the tasks of their worker: one that leaves its task changed has no part in what the next one sees."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from nats_jobs import Job, JobDef, job_processor
from nats_jobs.events import Error
from support.jobs import Seen, until, until_empty

pytestmark = pytest.mark.anyio

Careless = Callable[[Job[Any]], Awaitable[None]]

# Kept for good: what happens when they are collected is not the matter here.
_kept: list[Any] = []


async def leave_a_scope_open(job: Job[Any]) -> None:
    timeout = anyio.CancelScope(deadline=anyio.current_time() + 0.3)
    _kept.append(timeout)
    timeout.__enter__()


async def leave_a_cancelled_scope_open(job: Job[Any]) -> None:
    scope = anyio.CancelScope()
    _kept.append(scope)
    scope.__enter__()
    scope.cancel()


async def leave_a_group_open(job: Job[Any]) -> None:
    group = anyio.create_task_group()
    _kept.append(group)
    await group.__aenter__()


async def leave_a_group_open_with_a_running_child(job: Job[Any]) -> None:
    await leave_a_group_open(job)
    _kept[-1].start_soon(anyio.sleep_forever)


async def leave_a_group_open_with_a_child_that_fails(job: Job[Any]) -> None:
    async def fail() -> None:
        await anyio.sleep(0.1)
        raise ValueError("no")

    await leave_a_group_open(job)
    _kept[-1].start_soon(fail)


async def cancel_its_own_task(job: Job[Any]) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancel_its_own_task_and_fail(job: Job[Any]) -> None:
    await cancel_its_own_task(job)
    raise ValueError("no")


async def swallow_a_cancellation(job: Job[Any]) -> None:
    await cancel_its_own_task(job)
    try:
        await anyio.sleep(1)
    except asyncio.CancelledError:
        return


async def rename_its_task(job: Job[Any]) -> None:
    if _on_asyncio():
        task = asyncio.current_task()
        assert task is not None
        task.set_name("mine")
    else:
        import trio

        trio.lowlevel.current_task().name = "mine"


async def cancel_its_task_later(job: Job[Any]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.2, task.cancel)


def _on_asyncio() -> bool:
    import sniffio

    return sniffio.current_async_library() == "asyncio"


async def perform_beside(url: str, name: str, careless: Careless, concurrency: int) -> Seen:
    """Perform a careless job, and then innocent ones, none of which may notice anything."""
    done: list[int] = []
    names: set[str] = set()

    async def perform(job: Job[Any]) -> None:
        if job.payload == "careless":
            if job.attempt == 1:
                await careless(job)
            return

        names.add(anyio.get_current_task().name or "")
        await anyio.sleep(0.5)
        assert job.attempt == 1
        done.append(job.payload)

    seen = Seen()
    defn: JobDef[Any] = JobDef(
        stream=name, perform=perform, num_attempts=3, backoff=0.1, concurrency=concurrency
    )
    async with job_processor(url, on_event=seen) as p:
        handle = await p.start(defn)
        await p.enqueue(defn, "careless")
        await until(lambda: handle.statistics().completed + handle.statistics().failed > 0)
        await anyio.sleep(0.4)
        await p.enqueue_many(defn, [1, 2, 3])
        await until_empty(p.js, name)
        await p.stop()

    assert sorted(done) == [1, 2, 3]
    assert "mine" not in names
    return seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize(
    "careless",
    [
        leave_a_scope_open,
        leave_a_cancelled_scope_open,
        leave_a_group_open,
        leave_a_group_open_with_a_running_child,
        leave_a_group_open_with_a_child_that_fails,
    ],
    ids=lambda function: function.__name__,
)
async def test_what_is_left_open_is_a_failure_of_the_job_that_left_it(
    url: str, name: str, careless: Careless, concurrency: int
) -> None:
    seen = await perform_beside(url, name, careless, concurrency)
    [error] = seen.of(Error)
    assert isinstance(error.error, RuntimeError)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_renamed_task_is_not_used_again(url: str, name: str, concurrency: int) -> None:
    await perform_beside(url, name, rename_its_task, concurrency)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize(
    "careless",
    [
        cancel_its_own_task,
        cancel_its_own_task_and_fail,
        swallow_a_cancellation,
        cancel_its_task_later,
    ],
    ids=lambda function: function.__name__,
)
async def test_a_task_that_its_job_has_cancelled_is_not_used_again(
    url: str, name: str, careless: Careless, concurrency: int
) -> None:
    await perform_beside(url, name, careless, concurrency)


@pytest.mark.filterwarnings("ignore")
async def test_what_runs_in_a_group_that_was_left_open_ends_with_the_task_of_its_job(
    url: str, name: str
) -> None:
    ended = anyio.Event()

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async def careless(job: Job[Any]) -> None:
        await leave_a_group_open(job)
        _kept[-1].start_soon(child)
        await anyio.lowlevel.checkpoint()

    defn: JobDef[Any] = JobDef(stream=name, perform=careless, num_attempts=1)
    async with job_processor(url) as p:
        await p.start(defn)
        await p.enqueue(defn, None)
        with anyio.fail_after(10):
            await ended.wait()

        await p.stop()
