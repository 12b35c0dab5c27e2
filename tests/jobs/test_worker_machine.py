"""A whole engine in virtual time, to which anything happens in any order: it never stands still, and never settles twice.

The engine, its slots, its puller and its leases are the real ones. The server and the link are in memory, and break
as they are told. Whenever there is work at the server, a free slot and a link, a request or a delivery comes within a
bound. The fake server takes note of every word that was sent for a delivery by somebody who did not hold it any more, and
of every second answer that differs from the first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint, current_token
from hypothesis import HealthCheck, given, settings, strategies as st

from nats_jobs import Job, JobDef, codecs
from nats_jobs._clock import running_clock
from nats_jobs._groups import unwrapped
from nats_jobs.errors import NoResponders, RequestTimeout
from nats_jobs.jetstream import JetStreamApi
from nats_jobs.jobs._bound_consumer import BoundConsumer
from nats_jobs.jobs._context import WorkerContext
from nats_jobs.jobs._default_config import default_consumer, default_stream
from nats_jobs.jobs._emitter import Emitter
from nats_jobs.jobs._engine import Engine
from nats_jobs.jobs._handlers import async_handler
from nats_jobs.jobs._middleware import MiddlewareStack
from nats_jobs.jobs._settle import Counts
from nats_jobs.jobs._shutdown import Shutdown
from nats_jobs.jobs._unresponsive import UnresponsivePolicy
from nats_jobs.wire import Connection, Msg
from support.fake_link import FakeLink, FakeServer
from support.virtual_time import VirtualLoop, anyio_backend as anyio_backend, pause

pytestmark = pytest.mark.anyio

ACK_WAIT = 10.0
CONCURRENCY = 3
# Seconds. Silence is believed after two heartbeats, and a request that others hide after two more; then a retry waits, and
# asks whether the consumer is there.
MAX_IDLE = 20.0
# Seconds in which a worker looks at its consumer, whether or not it was told of a change; twice, for what gets lost.
MAX_UNNOTICED = 25.0
_LOOK_EVERY = 0.5
# Seconds in which all is done, once nothing breaks any more.
PEACE = 300.0

TIMES = st.sampled_from([0.1, 1.0, 4.0, 9.0, 12.0])
COUNTS = st.integers(1, 5)
KINDS = st.sampled_from(["ok", "ok", "fail", "stray"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), COUNTS, st.sampled_from([0.0, 0.0, 0.5, 6.0, 25.0]), KINDS),
        st.tuples(st.just("wait"), TIMES),
        st.tuples(st.just("cut_the_link"), TIMES),
        st.tuples(st.just("lose_replies"), COUNTS),
        st.tuples(st.just("swallow_what_is_sent"), TIMES),
        st.tuples(st.just("lose_the_leader"), TIMES),
        st.tuples(st.just("forget_the_requests")),
        st.tuples(st.just("recreate_consumer"), st.sampled_from([0.0, 0.0, 1.0, 4.0]), st.booleans()),
        st.tuples(st.just("edit_ack_wait"), st.sampled_from([4.0, 10.0, 25.0])),
        st.tuples(st.just("hold_up"), TIMES),
    ),
    max_size=25,
)


class Link(FakeLink):
    """Answers what a worker asks about its stream and its consumer, too."""

    defn: JobDef[Any]

    def set_receive_precision(self, seconds: float) -> None:
        pass

    async def request(
        self, subject: str, data: bytes = b"", *, timeout: float = 5.0, **kwargs: object
    ) -> Msg:
        await anyio.sleep(self.delay_in + self.delay_out)
        if self.swallow:
            await anyio.sleep(timeout)
            raise RequestTimeout(subject, timeout)

        if not self.connected:
            raise self._lost()

        if not self.server.has_leader:
            raise NoResponders(subject)

        answer = self._answer(subject, data)
        return Msg(subject, 0, "", b"", json.dumps(answer).encode())

    def _answer(self, subject: str, data: bytes) -> dict[str, Any]:
        server = self.server
        stream = default_stream(self.defn)
        if subject == "$JS.API.INFO":
            return {"api": {"level": 0}}

        if ".STREAM.INFO." in subject:
            return {"config": stream, "created": "2026-01-01T00:00:00Z"}

        if ".STREAM.MSG.GET." in subject:
            sequence = json.loads(data)["seq"]
            found = {"message": {"seq": sequence}}
            return found if sequence in server.messages else _error(10037, "no message found")

        if ".CONSUMER.CREATE." in subject:
            server.create_consumer()
        else:
            assert ".CONSUMER.INFO." in subject, subject

        # Who has asked knows.
        server.unnoticed = False
        if server.created is None:
            return _error(10014, "consumer not found")

        config = default_consumer(self.defn, stream) | {"ack_wait": int(server.ack_wait * 1e9)}
        return {"config": config, "created": f"2026-01-01T00:00:{server.created:02}Z"}


def _error(code: int, description: str) -> dict[str, Any]:
    return {"error": {"code": 404, "err_code": code, "description": description}}


class Machine:
    """One engine, and everything that can happen to it."""

    def __init__(self) -> None:
        self.server = FakeServer(running_clock(), ack_wait=ACK_WAIT, consumer="SConsumer")
        self.link = Link(self.server, "worker")
        self.server.links.append(self.link)
        self.idle_since: float | None = None

    async def perform(self, job: Job[dict[str, Any]]) -> None:
        await anyio.sleep(job.payload["sleep"])
        if job.attempt > 1:
            return

        if job.payload["kind"] == "fail":
            raise ValueError("as the payload says")

        if job.payload["kind"] == "stray":
            await _cancel_own_task()

    # What happens...

    async def publish(self, count: int, sleep: float, kind: str) -> None:
        for _ in range(count):
            self.server.publish(json.dumps({"sleep": sleep, "kind": kind}).encode())

    async def wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def cut_the_link(self, seconds: float) -> None:
        self.link.cut()
        await anyio.sleep(seconds)
        self.link.mend()

    async def lose_replies(self, count: int) -> None:
        self.link.lose_replies = count

    async def swallow_what_is_sent(self, seconds: float) -> None:
        self.link.swallow = True
        await anyio.sleep(seconds)
        self.link.swallow = False

    async def lose_the_leader(self, seconds: float) -> None:
        self.server.has_leader = False
        await anyio.sleep(seconds)
        self.server.has_leader = True
        self.server.at(self.server.clock(), self.server._serve)

    async def forget_the_requests(self) -> None:
        """As a leader does that dies: it tells nobody."""
        self.server.drop_requests(self.link)

    async def hold_up(self, seconds: float) -> None:
        pause(seconds)
        # Nobody can ask while it stands still: its time to do so begins now.
        self.idle_since = None
        await checkpoint()

    async def recreate_consumer(self, absent: float, told: bool) -> None:
        """Operators do that, and so does who restores a stream. The advisory may be lost."""
        self.server.delete_consumer()
        if told:
            advisory = "$JS.EVENT.ADVISORY.CONSUMER.DELETED.S.SConsumer"
            self.link.arrive(self.link.epoch, Msg(advisory, 0, "", b"", b""))

        await anyio.sleep(absent)
        self.server.create_consumer()

    async def edit_ack_wait(self, seconds: float) -> None:
        """Once, until somebody has looked: nobody can know of what was edited and edited back."""
        if not self.server.unnoticed:
            self.server.ack_wait = seconds

    # What must hold...

    async def watch(self, engine: Engine) -> None:
        """Never a slot that is idle for long while there is work at the server, nor another consumer that is unnoticed."""
        unnoticed = 0.0
        while True:
            await anyio.sleep(_LOOK_EVERY)
            unnoticed = unnoticed + _LOOK_EVERY if self.server.unnoticed and self.is_able() else 0.0
            assert unnoticed < MAX_UNNOTICED
            if not self.is_idle(engine):
                self.idle_since = None
            elif self.idle_since is None:
                self.idle_since = anyio.current_time()
            else:
                assert anyio.current_time() - self.idle_since < MAX_IDLE, engine.dispatcher.standing()

    def is_idle(self, engine: Engine) -> bool:
        server = self.server
        has_work = bool(server._fresh or server._again) and server.created is not None
        return (
            self.is_able()
            and has_work
            and engine.dispatcher.slots.busy < CONCURRENCY
            and not server._requests
        )

    def is_able(self) -> bool:
        """Whether the worker and the server hear each other."""
        return self.link.connected and self.server.has_leader and not self.link.swallow

    async def until_all_is_done(self) -> None:
        with anyio.fail_after(PEACE):
            while self.server.messages:
                await anyio.sleep(1)


async def _cancel_own_task() -> None:
    """As a library does that cancels the task that it finds itself in; Trio has no such thing."""
    if isinstance(current_token().native_token, VirtualLoop):
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep(1)


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    built = Machine()
    api = JetStreamApi(cast(Connection, built.link))
    built.link.defn = defn = JobDef[Any](
        stream="S",
        perform=built.perform,
        concurrency=CONCURRENCY,
        num_attempts=1000,
        backoff=0.5,
        codec=codecs.JSON,
    )
    context = WorkerContext(
        api=api,
        emitter=Emitter(),
        middleware=MiddlewareStack(),
        stop_grace=1.0,
        enqueue_timeout=5.0,
        patience=UnresponsivePolicy(report_after=5.0, give_up_after=30.0, then="wait"),
        processor=object(),
    )
    shutdown = Shutdown(1.0)
    with unwrapped():
        async with anyio.create_task_group() as around, async_handler(defn) as handler:
            around.start_soon(built.server.run)
            consumer = BoundConsumer.of(defn, await api.consumer("S", "SConsumer"), 0.0)
            engine = Engine(defn, context, handler, consumer, shutdown, Counts())
            async with anyio.create_task_group() as working:
                await working.start(engine.run)
                around.start_soon(built.watch, engine)
                yield built
                shutdown.request(1.0)

            around.cancel_scope.cancel("the engine has ended")

    assert built.server.offences == []
    assert not built.link.outstanding


async def _live_through(steps: list[tuple[Any, ...]]) -> None:
    async with machine() as built:
        for name, *arguments in steps:
            await getattr(built, name)(*arguments)

        await built.until_all_is_done()


@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
async def test_whatever_happens_a_worker_goes_on_and_settles_once(steps: list[tuple[Any, ...]]) -> None:
    await _live_through(steps)


async def test_a_request_that_is_lost_while_others_are_served_is_found_out() -> None:
    await _live_through(
        [
            ("publish", 1, 6.0, "fail"),
            ("wait", 0.1),
            ("cut_the_link", 0.1),
            ("swallow_what_is_sent", 0.1),
            ("publish", 40, 6.0, "ok"),
        ]
    )


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_whatever_happens_a_worker_goes_on_and_settles_once_at_length(
    steps: list[tuple[Any, ...]],
) -> None:
    await _live_through(steps)
