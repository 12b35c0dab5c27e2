"""A coroutine in context variables of its own behaves as one in a task of its own, on each backend."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from anyio import from_thread, to_thread
from anyio.lowlevel import checkpoint

from nats_jobs.jobs._coroutine_driver import drive
from support.loops import anyio_backend as anyio_backend

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


class Traveller:
    """Notes what it is told; gives up when `abandoned` is set."""

    def __init__(self, first_suspended: Callable[[], object] = lambda: None) -> None:
        self.abandoned: Exception | None = None
        self.held: list[float] = []
        self.steps: list[float] = []
        self._gave_way = first_suspended

    def before_step(self, now: float) -> None:
        self.steps.append(now)

    def first_suspended(self) -> None:
        self._gave_way()

    def step_too_long(self, seconds: float) -> None:
        self.held.append(seconds)


async def driven(
    function: Callable[..., Coroutine[Any, Any, Any]],
    *args: Any,
    listener: Traveller | None = None,
    clock: Callable[[], float] = time.monotonic,
    longest_step: float = math.inf,
) -> Any:
    listener = listener or Traveller()
    return await drive(contextvars.copy_context(), function(*args), listener, clock, longest_step)


@pytest.mark.anyio
class TestOnAnEventLoop:
    async def test_what_it_returns_and_what_it_raises_come_through(self) -> None:
        async def give(value: int) -> int:
            await checkpoint()
            return value

        async def fail() -> None:
            await checkpoint()
            raise KeyError("mine")

        assert await driven(give, 7) == 7
        with pytest.raises(KeyError, match="mine"):
            await driven(fail)

    async def test_what_it_sets_is_seen_by_itself_and_by_nobody_outside(self) -> None:
        async def change() -> list[str]:
            seen = [variable.get()]
            variable.set("inside")
            for _ in range(3):
                await checkpoint()
                seen.append(variable.get())

            return seen

        assert await driven(change) == ["outside", "inside", "inside", "inside"]
        assert variable.get() == "outside"

    async def test_two_at_the_same_time_do_not_see_each_other(self) -> None:
        async def change(to: str) -> None:
            variable.set(to)
            for _ in range(10):
                await checkpoint()
                assert variable.get() == to

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(driven, change, str(number))

    async def test_task_groups_inside_inherit_its_variables_and_fail_as_usual(self) -> None:
        seen: list[str] = []

        async def child() -> None:
            await checkpoint()
            seen.append(variable.get())

        async def failing_child() -> None:
            raise KeyError

        async def parent() -> None:
            variable.set("parent")
            async with anyio.create_task_group() as group:
                group.start_soon(child)

            with pytest.raises(ExceptionGroup):
                async with anyio.create_task_group() as group:
                    group.start_soon(failing_child)
                    await anyio.sleep_forever()

            assert variable.get() == "parent"

        await driven(parent)
        assert seen == ["parent"]

    async def test_threads_inherit_its_variables_and_can_call_back(self) -> None:
        async def current() -> str:
            await checkpoint()
            return variable.get()

        def in_thread() -> tuple[str, str]:
            return variable.get(), from_thread.run(current)

        async def parent() -> Any:
            variable.set("parent")
            return await to_thread.run_sync(in_thread)

        assert await driven(parent) == ("parent", "parent")

    async def test_scopes_and_timeouts_inside_work(self) -> None:
        async def too_long() -> bool:
            with anyio.move_on_after(0.01) as scope:
                await anyio.sleep_forever()

            with pytest.raises(TimeoutError), anyio.fail_after(0.01):
                await anyio.sleep_forever()

            return scope.cancelled_caught

        assert await driven(too_long) is True

    async def test_a_cancellation_from_around_reaches_it_in_its_own_variables(self) -> None:
        seen: list[str] = []

        async def cleaning_up() -> None:
            variable.set("mine")
            try:
                await anyio.sleep_forever()
            finally:
                seen.append(variable.get())
                with anyio.move_on_after(5, shield=True):
                    await anyio.sleep(0.01)
                    seen.append("cleaned up")

        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(driven, cleaning_up)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()

        assert scope.cancelled_caught
        assert seen == ["mine", "cleaned up"]

    async def test_a_cancellation_that_it_swallows_does_not_come_out(self) -> None:
        async def swallowing(scope: anyio.CancelScope) -> str:
            try:
                scope.cancel()
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                return "swallowed"  # on purpose: a handler may do it

            return "not cancelled"

        with anyio.CancelScope() as scope:
            assert await driven(swallowing, scope) == "swallowed"

    async def test_it_can_run_one_inside_another(self) -> None:
        async def inner() -> None:
            assert variable.get() == "outer"
            variable.set("inner")
            await checkpoint()
            assert variable.get() == "inner"

        async def outer() -> None:
            variable.set("outer")
            await driven(inner)
            assert variable.get() == "outer"

        await driven(outer)

    async def test_giving_way_is_told_once_and_before_anybody_else_runs(self) -> None:
        order: list[str] = []

        async def waits() -> None:
            for _ in range(3):
                order.append("running")
                await checkpoint()

        await driven(waits, listener=Traveller(lambda: order.append("gives way")))
        assert order == ["running", "gives way", "running", "running"]

    async def test_one_that_never_waits_does_not_give_way(self) -> None:
        told: list[bool] = []

        async def at_once() -> int:
            return 1

        assert await driven(at_once, listener=Traveller(lambda: told.append(True))) == 1
        assert told == []

    async def test_a_step_that_took_too_long_is_told_with_its_length_and_others_are_not(self) -> None:
        now = 0.0
        listener = Traveller()

        async def steps() -> None:
            nonlocal now
            for seconds in (0.5, 3.0, 1.0):
                now += seconds
                await checkpoint()

            now += 4.0
            raise KeyError

        async def drive_and_wait() -> None:
            await driven(steps, listener=listener, clock=lambda: now, longest_step=1.0)

        with pytest.raises(KeyError):
            await drive_and_wait()

        assert listener.held == [3.0, 4.0]
        assert listener.steps == [0.0, 0.5, 3.5, 4.5]

    async def test_one_that_was_given_up_is_dropped_at_its_next_step(self) -> None:
        listener = Traveller()
        order: list[str] = []

        async def ignores_its_end() -> None:
            await checkpoint()
            order.append("goes on")
            listener.abandoned = LookupError("given up")
            try:
                await checkpoint()
            except GeneratorExit:
                order.append("ignores")
                await checkpoint()

            order.append("never reached")

        with pytest.raises(LookupError, match="given up"):
            await driven(ignores_its_end, listener=listener)

        assert order == ["goes on", "ignores"]
        # The event loop has not noticed.
        await checkpoint()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_futures_timeouts_and_tasks_of_asyncio_work_inside() -> None:
    async def inside() -> str:
        variable.set("inside")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        loop.call_soon(future.set_result, "done")
        async with asyncio.timeout(5):
            assert await future == "done"

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await loop.create_future()

        return await asyncio.create_task(asyncio.to_thread(variable.get))

    assert await driven(inside) == "inside"


def test_closing_it_closes_the_coroutine_in_its_own_variables() -> None:
    seen: list[str] = []

    async def open_ended() -> None:
        variable.set("mine")
        try:
            await asyncio.sleep(0)
        finally:
            seen.append(variable.get())

    async def outer() -> None:
        await driven(open_ended)

    coroutine = outer()
    coroutine.send(None)
    coroutine.close()
    assert seen == ["mine"]
