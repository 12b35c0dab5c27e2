"""Groups whose tasks outlive the cancellation of a block, and what comes out of groups."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from nats_jobs._groups import outliving_group, unwrapped

LIMIT = 30.0  # never waited for: only what a hanging test is given
# More than it takes to enter a group and start a task in it, on any backend.
TURNS = range(12)


async def ready_at_once(*, task_status: TaskStatus[None]) -> None:
    task_status.started()
    await anyio.sleep_forever()


async def hold_a_group() -> None:
    async with outliving_group("the block was left") as group:
        await group.start(ready_at_once)
        await anyio.sleep_forever()


async def cancel_after(turns: int, scope: anyio.CancelScope) -> None:
    for _ in range(turns):
        await checkpoint()

    scope.cancel("not needed any more")


@pytest.mark.anyio
@pytest.mark.parametrize("turns", TURNS)
async def test_a_block_that_is_cancelled_at_any_turn_of_its_beginning_ends(turns: int) -> None:
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            group.start_soon(cancel_after, turns, group.cancel_scope)
            group.start_soon(hold_a_group)


@pytest.mark.anyio
@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("anyio_backend", [("asyncio", {}), ("asyncio", {"use_uvloop": True})])
async def test_so_does_one_whose_task_is_cancelled_the_way_of_asyncio(turns: int) -> None:
    task = asyncio.get_running_loop().create_task(hold_a_group())
    for _ in range(turns):
        await asyncio.sleep(0)

    task.cancel()
    done, _ = await asyncio.wait([task], timeout=LIMIT)
    assert done
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.anyio
async def test_its_tasks_run_on_while_the_cancelled_block_cleans_up() -> None:
    answered = anyio.Event()
    asked = anyio.Event()

    async def answer() -> None:
        await asked.wait()
        await checkpoint()
        answered.set()

    with anyio.CancelScope() as scope:
        async with outliving_group("the block was left") as group:
            group.start_soon(answer)
            scope.cancel("stop")
            try:
                await anyio.sleep_forever()
            finally:
                asked.set()
                with anyio.move_on_after(LIMIT, shield=True):
                    await answered.wait()

    assert answered.is_set()


@pytest.mark.anyio
async def test_a_task_that_fails_cancels_the_block() -> None:
    async def fail() -> None:
        raise ZeroDivisionError("mine")

    with anyio.fail_after(LIMIT), pytest.RaisesGroup(pytest.RaisesGroup(ZeroDivisionError)):
        async with outliving_group("the block was left") as group:
            group.start_soon(fail)
            await anyio.sleep_forever()


# What comes out...


def test_an_exception_alone_in_its_groups_comes_out_as_itself() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as raised, unwrapped():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [error])])

    assert raised.value is error


def test_several_come_out_in_one_group_not_in_one_for_each_task_group_they_passed_through() -> None:
    inner = ExceptionGroup("inner", [KeyError("one"), ValueError("other")])
    with pytest.raises(ExceptionGroup) as raised, unwrapped():
        raise ExceptionGroup("outer", [ExceptionGroup("middle", [inner])])

    assert raised.value is inner


def test_a_group_with_several_is_left_as_it_is() -> None:
    group = ExceptionGroup("group", [KeyError("one"), ValueError("other")])
    with pytest.raises(ExceptionGroup) as raised, unwrapped():
        raise group

    assert raised.value is group
