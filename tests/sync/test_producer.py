"""Enqueueing from code without an event loop: from threads, after a fork, with Ctrl-C, when there is no server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from threading import Event, get_ident
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from nats.js.api import StreamConfig

from nats_jobs import Job, JobProcessor, Middleware, job, job_processor
from nats_jobs.errors import ConnectFailed, EncodeError, EnqueueFailed, NatsJobsError, UsageError
from nats_jobs.server import Server, run_server
from nats_jobs.sync import Producer

BACKENDS = ("asyncio", "trio")
LIMIT = 60.0


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def p(portal: BlockingPortal, url: str, name: str) -> Iterator[JobProcessor]:
    """A processor that looks at what is stored, in the stream `name`."""
    with portal.wrap_async_context_manager(stream(url, name)) as p:
        yield p


@asynccontextmanager
async def stream(url: str, name: str) -> AsyncIterator[JobProcessor]:
    async with job_processor(url) as p:
        await p.js.add_stream(StreamConfig(name=name, subjects=[name]))
        yield p
        await p.js.delete_stream(name)


@pytest.fixture
def own_server(portal: BlockingPortal) -> Iterator[Server]:
    with portal.wrap_async_context_manager(run_server()) as server:
        yield server


def count(portal: BlockingPortal, p: JobProcessor, name: str) -> int:
    return portal.call(p.js.stream_info, name).state.messages


def ran(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_a_job_is_stored_when_enqueue_returns(
    backend: str, url: str, name: str, portal: BlockingPortal, p: JobProcessor
) -> None:
    @job(name)
    async def greet(job: Job[str]) -> None: ...

    with Producer(url, backend=backend) as producer:
        first = producer.enqueue(greet, "Ada", id="one")
        again = producer.enqueue(greet, "Ada", id="one")
        many = producer.enqueue_many(greet, (f"{number}" for number in range(10)))
    assert (first.duplicate, again.duplicate, len(many)) == (False, True, 10)
    assert count(portal, p, name) == 11


def test_threads_share_one_event_loop_and_each_gets_its_own_answer(
    backend: str, url: str, name: str, portal: BlockingPortal, p: JobProcessor
) -> None:
    threads_of_ours: set[int] = set()

    class Watch(Middleware):
        @asynccontextmanager
        async def around_enqueue(self, request: Any) -> AsyncIterator[None]:
            threads_of_ours.add(get_ident())
            yield

    with Producer(url, backend=backend, middleware=[Watch()]) as producer, ThreadPoolExecutor(20) as threads:
        stored = [*threads.map(lambda number: producer.enqueue(name, number), range(400))]
    assert sorted(job.sequence for job in stored) == [*range(1, 401)]
    assert len(threads_of_ours) == 1


def test_bad_input_has_the_errors_of_a_processor(backend: str, url: str, name: str, p: JobProcessor) -> None:
    with Producer(url, backend=backend, enqueue_timeout=1) as producer:
        with pytest.raises(EncodeError):
            producer.enqueue(name, object())
        with pytest.raises(UsageError, match="delay"):
            producer.enqueue(name, 1, delay=-1)
        with pytest.raises(EnqueueFailed):
            producer.enqueue_many("NO_SUCH_STREAM", [1], ids=["a"])
        assert producer.enqueue(name, 1).sequence == 1


def test_a_delayed_job_can_be_cancelled(backend: str, url: str, name: str, p: JobProcessor) -> None:
    with Producer(url, backend=backend) as producer:
        later = producer.enqueue(name, 1, delay=3600)
        assert producer.run(later.cancel)
        assert not producer.run(later.cancel)


def test_without_a_server_it_fails_and_the_next_call_tries_again(
    backend: str, portal: BlockingPortal, own_server: Server
) -> None:
    portal.call(make_stream, own_server.url)
    own_server.kill()
    portal.call(own_server.wait_exited)
    with Producer(own_server.url, backend=backend) as producer:
        with pytest.raises(ConnectFailed):
            producer.enqueue("WORK", 1)
        portal.call(own_server.restart)
        assert producer.enqueue("WORK", 1).sequence == 1


async def make_stream(url: str) -> None:
    async with job_processor(url) as p:
        await p.js.add_stream(StreamConfig(name="WORK", subjects=["WORK"]))


def config(password: str) -> str:
    return f"authorization {{ user: app, password: {password} }}\n"


def test_a_connection_that_has_ended_for_good_is_an_error_once_and_then_made_anew(
    backend: str, portal: BlockingPortal
) -> None:
    with portal.wrap_async_context_manager(run_server(config=config("one"))) as server:
        portal.call(make_stream_as, server.url, "one")
        with Producer(server.url, backend=backend, user="app", password="one") as producer:
            producer.enqueue("WORK", 1)
            server.reload(config("two"))
            with pytest.raises(NatsJobsError):
                for _ in range(1000):
                    producer.enqueue("WORK", 1)
                    time.sleep(0.01)
            server.reload(config("one"))
            stored = enqueued_in_the_end(producer)
        assert stored > 1


async def make_stream_as(url: str, password: str) -> None:
    async with job_processor(url, user="app", password=password) as p:
        await p.js.add_stream(StreamConfig(name="WORK", subjects=["WORK"]))


def enqueued_in_the_end(producer: Producer) -> int:
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return producer.enqueue("WORK", 2).sequence
        except NatsJobsError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.anyio
async def test_in_the_thread_of_an_event_loop_it_is_refused(url: str, name: str) -> None:
    with Producer(url) as producer:
        with pytest.raises(UsageError, match=r"to_thread\.run_sync"):
            producer.enqueue(name, 1)


class Gate(Middleware):
    """Holds what is enqueued until it is opened."""

    def __init__(self) -> None:
        self.reached = Event()
        self.opened = Event()

    @asynccontextmanager
    async def around_enqueue(self, request: Any) -> AsyncIterator[None]:
        self.reached.set()
        await anyio.to_thread.run_sync(self.opened.wait)
        yield


def test_closing_waits_for_the_calls_of_other_threads(
    backend: str, url: str, name: str, portal: BlockingPortal, p: JobProcessor
) -> None:
    gate = Gate()
    producer = Producer(url, backend=backend, middleware=[gate])
    with ThreadPoolExecutor(2) as threads:
        enqueueing = threads.submit(producer.enqueue, name, 1)
        gate.reached.wait(LIMIT)
        closing = threads.submit(producer.close)
        while "closed" not in repr(producer):
            time.sleep(0.001)
        gate.opened.set()
        assert enqueueing.result(LIMIT).sequence == 1
        closing.result(LIMIT)
    assert count(portal, p, name) == 1


def test_closing_ends_a_call_that_does_not_end(backend: str, url: str, name: str) -> None:
    producer = Producer(url, backend=backend, enqueue_timeout=0.2)
    started = Event()

    async def endless() -> None:
        started.set()
        await anyio.sleep_forever()

    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(producer.run, endless)
        started.wait(LIMIT)
        producer.close()
        with pytest.raises(UsageError, match="closed"):
            call.result(LIMIT)


def test_after_closing_it_says_so_and_closing_again_is_fine(url: str, name: str) -> None:
    producer = Producer(url)
    producer.close()
    producer.close()
    with pytest.raises(UsageError, match="closed"):
        producer.enqueue(name, 1)


CTRL_C = """
import os, signal, sys, threading
from nats_jobs.sync import Producer

async def wait():
    import anyio
    try:
        await anyio.sleep(0.2)  # Until the main thread waits for this call.
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()
    finally:
        print("cancelled", flush=True)

with Producer(sys.argv[1], backend=sys.argv[2]) as producer:
    try:
        producer.run(wait)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(producer.enqueue(sys.argv[3], 1).sequence)
"""


def test_ctrl_c_cancels_the_call_and_nothing_else(backend: str, url: str, name: str, p: JobProcessor) -> None:
    done = ran(CTRL_C, url, backend, name)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == ["1", "cancelled", "interrupted"]


FORK = """
import os, sys
from nats_jobs.sync import Producer

producer = Producer(sys.argv[1], backend=sys.argv[2])
if sys.argv[4] == "used":
    producer.enqueue(sys.argv[3], "parent")
for number in range(3):
    child = os.fork()
    if not child:
        producer.enqueue(sys.argv[3], "child")
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    producer.enqueue(sys.argv[3], "parent")
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("used", ["used", "unused"])
def test_a_forked_child_has_a_connection_of_its_own_and_leaves_that_of_its_parent_alone(
    backend: str, used: str, url: str, name: str, portal: BlockingPortal, p: JobProcessor
) -> None:
    done = ran(FORK, url, backend, name, used)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
    assert count(portal, p, name) == 6 + (used == "used")


NEVER_CLOSED = """
import sys
from nats_jobs.sync import Producer

producer = Producer(sys.argv[1], backend=sys.argv[2])
print(producer.enqueue(sys.argv[3], 1).sequence)
"""


def test_a_program_that_never_closes_it_ends_as_others_do(
    backend: str, url: str, name: str, p: JobProcessor
) -> None:
    done = ran(NEVER_CLOSED, url, backend, name)
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)
