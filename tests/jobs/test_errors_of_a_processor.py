"""What cannot work is told at once, in words that help, and never as a hang."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint
from nats.js.api import ConsumerConfig

from nats_jobs import Job, JobDef, NatsJobsError, job_processor, run
from nats_jobs.errors import (
    AuthorizationFailed,
    ConnectFailed,
    NotConfirmed,
    PermissionDenied,
    UsageError,
)
from nats_jobs.server import Server, run_server
from support.jobs import LIMIT, until
from support.servers import free_port

pytestmark = pytest.mark.anyio

# Users who may do everything but what their name says.
USERS = """
accounts {{ APP {{ jetstream: enabled, users = [
  {{user: all, password: secret}}
  {{user: no_consumers, password: secret, permissions: {{ publish: {{ deny: ["$JS.API.CONSUMER.>"] }} }}}}
  {{user: no_streams, password: secret, permissions: {{ publish: {{ deny: ["$JS.API.STREAM.>"] }} }}}}
  {{user: no_pulls, password: secret, permissions: {{ publish: {{ deny: ["$JS.API.CONSUMER.MSG.NEXT.>"] }} }}}}
  {{user: no_jobs, password: secret, permissions: {{ publish: {{ deny: ["JOBS.>", "JOBS"] }} }}}}
  {{user: no_inbox, password: secret, permissions: {{ subscribe: {{ deny: ["_INBOX.>"] }} }}}}
] }} }}
""".replace("{{", "{").replace("}}", "}")


async def perform(job: Job[Any]) -> None: ...


def defined(name: str, **fields: Any) -> JobDef[Any]:
    return JobDef(stream=name, perform=perform, **fields)


# No server, or none that wants us...


async def test_a_missing_server_is_named_at_once() -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectFailed, match="is one running") as failed, anyio.fail_after(LIMIT):
        async with job_processor(url):
            raise AssertionError("no server, and yet the block was entered")

    assert url.removeprefix("nats://") in str(failed.value)


async def test_every_server_that_was_tried_is_named() -> None:
    urls = [f"nats://127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(ConnectFailed) as failed:
        async with job_processor(urls):
            pass

    assert all(url.removeprefix("nats://") in str(failed.value) for url in urls)


async def test_a_server_that_is_named_by_the_environment_is_used(url: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("NATS_URL", url)
    async with job_processor() as p:
        assert p.connection.connected


@pytest.mark.parametrize(
    "options",
    [{}, {"user": "all", "password": "wrong"}, {"user": "nobody", "password": "secret"}, {"token": "wrong"}],
)
async def test_a_refused_password_is_named_as_the_reason(guarded: Server, options: Any) -> None:
    with pytest.raises(AuthorizationFailed, match="check user, password") as failed, anyio.fail_after(LIMIT):
        async with job_processor(guarded.url, **options):
            pass

    assert str(guarded.port) in str(failed.value)
    assert "secret" not in str(failed.value)
    assert "wrong" not in str(failed.value)


# Arguments...


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"usr": "me"}, "did you mean user"),
        ({"reconnect_timewait": 1}, "did you mean reconnect_time_wait"),
        ({"zzz": 1}, "the known ones are: "),
        ({"stop_grace": -1}, "stop_grace is -1; seconds, 0 or more"),
        ({"stop_grace": math.nan}, "stop_grace"),
        ({"stop_grace": "30"}, "stop_grace"),
        ({"stop_grace": True}, "stop_grace"),
        ({"stop_grace": None}, "stop_grace"),
        ({"enqueue_timeout": 0}, "enqueue_timeout is 0"),
        ({"enqueue_timeout": math.inf}, "enqueue_timeout"),
        ({"enqueue_timeout": "20"}, "enqueue_timeout"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"password": "x"}, "user"),
        ({"servers": []}, "servers"),
        ({"servers": 4222}, "servers"),
        ({"servers": [4222]}, "servers"),
        ({"stop_signals": "SIGTERM"}, "stop_signals"),
        ({"stop_signals": 15}, "stop_signals"),
        ({"stop_signals": (100_000,)}, "stop_signals"),
        ({"on_event": "print"}, "on_event"),
        ({"on_event": perform}, r"a coroutine function, which nobody would await.*p\.events\(\)"),
    ],
)
async def test_an_argument_that_cannot_work_is_refused_before_anything_is_done(
    url: str, options: dict[str, Any], hint: str
) -> None:
    given: dict[str, Any] = {"servers": url, **options}
    with pytest.raises(UsageError, match=hint) as refused:
        async with job_processor(**given):
            pass

    assert isinstance(refused.value, NatsJobsError)


# Starting and stopping...


@pytest.mark.parametrize("what", [perform, None, "ORDERS", JobDef])
async def test_what_is_no_definition_cannot_be_started(url: str, what: Any) -> None:
    async with job_processor(url) as p:
        with pytest.raises(UsageError, match=r"not a JobDef; build one, or put @job"):
            p.start_soon(what)

        with pytest.raises(UsageError, match="not a JobDef"):
            await p.start(what)


async def test_one_consumer_cannot_be_worked_on_twice_by_one_processor(url: str, name: str) -> None:
    async with job_processor(url) as p:
        handle = await p.start(defined(name))
        for again in (defined(name), handle.defn):
            with pytest.raises(UsageError, match=f"{name}Consumer.*already has a worker in this processor"):
                await p.start(again)

            with pytest.raises(UsageError, match="durable_name"):
                p.start_soon(again)

        await handle.stop()
        await p.start(defined(name))
        await p.stop()


async def test_two_consumers_of_one_stream_can_be_worked_on(url: str, name: str) -> None:
    async with job_processor(url) as p:
        for part in "ab":
            consumer = ConsumerConfig(durable_name=part, filter_subject=f"{name}.{part}")
            await p.start(defined(name, consumer_config=consumer))

        await p.stop()


async def test_after_stop_nothing_can_be_started_and_jobs_can_still_be_enqueued(url: str, name: str) -> None:
    async with job_processor(url) as p:
        await p.start(defined(name))
        await p.stop()
        with pytest.raises(UsageError, match="told to stop"):
            await p.start(defined(name))

        with pytest.raises(UsageError, match="told to stop"):
            p.start_soon(defined(name))

        assert (await p.enqueue(name, 1)).sequence == 1
        await p.stop()


async def test_after_the_block_a_processor_says_that_it_is_closed(url: str, name: str) -> None:
    async with job_processor(url) as p:
        pass

    with pytest.raises(NatsJobsError), anyio.fail_after(LIMIT):
        await p.enqueue(name, 1)

    with pytest.raises(UsageError):
        p.start_soon(defined(name))


@pytest.mark.parametrize("grace", [-1, "1", True, math.nan])
async def test_stopping_with_a_grace_that_cannot_be_is_refused_and_stops_nothing(
    url: str, name: str, grace: Any
) -> None:
    async with job_processor(url) as p:
        handle = await p.start(defined(name))
        with pytest.raises(UsageError, match="grace"):
            await p.stop(grace=grace)

        with pytest.raises(UsageError, match="grace"):
            p.stop_soon(grace=grace)

        assert not handle._worker.stopping
        await p.stop()


@pytest.mark.parametrize("grace", [-1, "1", True, math.nan])
async def test_stopping_one_worker_with_a_grace_that_cannot_be_is_refused(
    url: str, name: str, grace: Any
) -> None:
    async with job_processor(url) as p:
        handle = await p.start(defined(name))
        try:
            with pytest.raises(UsageError, match="grace"):
                await handle.stop(grace=grace)
        finally:
            p.stop_soon()


@pytest.mark.parametrize("steps", range(6))
async def test_a_stop_while_a_worker_is_being_started_is_no_surprise_to_its_starter(
    url: str, name: str, steps: int
) -> None:
    async with job_processor(url) as p, anyio.create_task_group() as group:

        async def start() -> None:
            with suppress(UsageError):
                await (await p.start(defined(name))).wait_stopped()

        group.start_soon(start)
        for _ in range(steps):
            await checkpoint()

        with anyio.fail_after(LIMIT):
            await p.stop()


async def test_cancelling_a_start_ends_that_worker_only(url: str, name: str) -> None:
    async with job_processor(url) as p:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await p.start(defined(name))

        assert scope.cancelled_caught
        await p.start(defined(name))
        await p.stop()


def test_run_without_definitions_or_on_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        run()

    with pytest.raises(UsageError, match="'asyncio' or 'trio'"):
        run(defined("S"), backend="curio")  # type: ignore[arg-type]


# Users with fewer rights...


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(run_server(config=USERS)) as server,
    ):
        yield server


@pytest.mark.parametrize(
    ("user", "subject"), [("no_consumers", "$JS.API.CONSUMER"), ("no_streams", "$JS.API.STREAM")]
)
async def test_a_user_who_may_not_set_up_is_told_which_right_is_missing(
    guarded: Server, name: str, user: str, subject: str
) -> None:
    async with job_processor(guarded.url, user=user, password="secret") as p:
        with pytest.raises(PermissionDenied, match="permissions") as refused, anyio.fail_after(LIMIT):
            await p.start(defined(name))

        assert refused.value.subject.startswith(subject)


async def test_a_user_who_may_not_pull_ends_the_worker_with_an_error(guarded: Server, name: str) -> None:
    with pytest.raises(PermissionDenied, match=r"MSG\.NEXT"), anyio.fail_after(10):
        async with job_processor(guarded.url, user="no_pulls", password="secret") as p:
            p.start_soon(defined(name))


async def test_a_user_who_may_not_enqueue_is_told_so_at_once(guarded: Server) -> None:
    async with job_processor(guarded.url, user="no_jobs", password="secret") as p:
        with pytest.raises(PermissionDenied, match=r"JOBS\.a"), anyio.fail_after(LIMIT):
            await p.enqueue("JOBS.a", 1)


async def test_a_user_who_may_not_receive_replies_is_told_so_instead_of_timeouts(
    guarded: Server, name: str
) -> None:
    with pytest.raises(PermissionDenied, match="_INBOX"), anyio.fail_after(LIMIT):
        async with job_processor(guarded.url, user="no_inbox", password="secret") as p:
            await p.start(defined(name))


@pytest.mark.parametrize("right", ["$JS.ACK.>", "$JS.API.CONSUMER.MSG.NEXT.>"])
async def test_a_right_that_is_taken_away_ends_the_worker_while_it_runs(name: str, right: str) -> None:
    async with run_server(config=rights()) as server:
        with pytest.raises(PermissionDenied, match="permissions") as refused, anyio.fail_after(LIMIT):
            async with job_processor(server.url, user="app", password="secret") as p:
                handle = await p.start(defined(name))
                await p.enqueue(name, 1)
                await until(lambda: handle.statistics().completed == 1)
                server.reload(rights(without=right))
                await until(lambda: "Reloaded server configuration" in server.logs())
                # Each takes an ack, and a new pull.
                await p.enqueue_many(name, [2, 3, 4])

        assert refused.value.subject.startswith(right.removesuffix(">"))


def rights(*, without: str = "") -> str:
    denied = f', permissions: {{ publish: {{ deny: ["{without}"] }} }}' if without else ""
    return f"accounts {{ APP {{ jetstream: enabled, users = [ {{user: app, password: secret{denied}}} ] }} }}"


async def test_a_server_that_goes_for_good_ends_the_processor() -> None:
    async with run_server() as server:
        with pytest.raises(ConnectFailed), anyio.fail_after(LIMIT):
            async with job_processor(server.url, max_reconnect_attempts=2, reconnect_time_wait=0.05) as p:
                handle = await p.start(defined("JOBS"))
                server.kill()
                await until(lambda: handle.statistics().running)


async def test_enqueueing_while_the_server_is_away_for_too_long_fails_with_the_reason() -> None:
    async with run_server() as server, job_processor(server.url, enqueue_timeout=0.2) as p:
        server.kill()
        await server.wait_exited()
        with pytest.raises(NotConfirmed, match="JOBS"), anyio.fail_after(LIMIT):
            await p.enqueue("JOBS", 1)
