"""A consumer that is deleted, created again or edited under a worker, on a real server."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from nats_jobs import CancelReason, Job, JobDef, JobHandle, JobProcessor, job_processor
from nats_jobs.errors import ConfigMismatch, StreamDeleted
from nats_jobs.events import Complete, LeaseLost
from support.jobs import LIMIT, Seen, engine_of, until, until_empty
from support.proxy import fault_proxy

pytestmark = pytest.mark.anyio

# No lease ends by itself in these tests.
LONG = 20 * LIMIT


class Held:
    """Jobs that last until they are cut short, the first time; and why they were."""

    def __init__(self, name: str, *, ack_wait: float = LONG, concurrency: int = 1) -> None:
        self.reasons = list[CancelReason | None]()
        self.done = list[str]()
        self.cut = 1
        self.defn: JobDef[str] = JobDef(
            stream=name,
            perform=self._perform,
            concurrency=concurrency,
            consumer_config=ConsumerConfig(ack_wait=ack_wait),
        )

    async def _perform(self, job: Job[str]) -> None:
        if len(self.reasons) < self.cut:
            try:
                await anyio.sleep_forever()
            finally:
                self.reasons.append(job.reason)

        self.done.append(job.payload)


async def hold_one(p: JobProcessor, held: Held) -> JobHandle[str]:
    handle = await p.start(held.defn)
    await p.enqueue(held.defn, "first")
    await until(lambda: handle.running)
    return handle


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_consumer_that_is_deleted_is_set_up_again_and_its_jobs_are_lost_first(
    url: str, name: str, concurrency: int
) -> None:
    """With one slot no request waits at the server, which would tell: an advisory does."""
    held = Held(name, concurrency=concurrency)
    seen = Seen()
    async with job_processor(url, on_event=seen) as p:
        await hold_one(p, held)
        await p.js.delete_consumer(name, f"{name}Consumer")
        with anyio.fail_after(LIMIT):
            await until(lambda: held.reasons)
            await until(lambda: held.done)

        await until_empty(p.js, name)
        await p.stop()

    assert held.reasons == [CancelReason.LEASE_LOST]
    assert held.done == ["first"]
    assert len(seen.of(LeaseLost)) == len(seen.of(Complete)) == 1


async def test_a_stream_that_is_deleted_ends_the_processor_and_is_not_created_again(
    url: str, name: str
) -> None:
    """Its jobs are gone, which an empty stream of that name would hide."""
    held = Held(name)
    with pytest.raises(StreamDeleted, match=name) as caught, anyio.fail_after(LIMIT):
        async with job_processor(url) as p:
            await hold_one(p, held)
            await p.js.delete_stream(name)
            await anyio.sleep_forever()

    assert held.reasons == [CancelReason.LEASE_LOST]
    assert caught.value.exit_code == 1
    async with job_processor(url) as p:
        with pytest.raises(NotFoundError):
            await p.js.stream_info(name)


async def test_a_stream_that_is_deleted_and_created_again_at_once_is_worked_on(url: str, name: str) -> None:
    held = Held(name)
    async with job_processor(url) as p:
        await hold_one(p, held)
        await p.js.delete_stream(name)
        await p.js.add_stream(name=name, subjects=[name], retention="workqueue")
        await p.enqueue(held.defn, "second")
        await until(lambda: held.done)
        await p.stop()

    assert held.done == ["second"]


async def test_who_deletes_a_consumer_may_create_it_again_with_settings_of_their_own(
    url: str, name: str
) -> None:
    held = Held(name)
    async with job_processor(url) as p:
        await hold_one(p, held)
        await p.js.delete_consumer(name, f"{name}Consumer")
        config = ConsumerConfig(durable_name=f"{name}Consumer", ack_wait=LONG, max_ack_pending=7)
        await p.js.add_consumer(name, config)
        await until(lambda: held.done)
        assert (await p.api.consumer(name, f"{name}Consumer")).config["max_ack_pending"] == 7
        await p.stop()


async def test_what_was_held_of_a_former_consumer_is_never_settled(url: str, name: str) -> None:
    """The same number is another message in the new stream; its job must not be removed by the end of the old one."""
    old = Held(name)
    async with fault_proxy(url) as proxy, job_processor(proxy.url, reconnect_time_wait=0.1) as p:
        await hold_one(p, old)
        async with job_processor(url) as other:
            proxy.refuse()
            proxy.cut()
            await other.js.delete_stream(name)
            new = Held(name)
            await hold_one(other, new)
            proxy.restore()
            await until(lambda: old.reasons)
            assert (await other.js.stream_info(name)).state.messages == 1
            assert not new.reasons
            await other.stop(grace=0)

        await p.stop(grace=0)

    assert old.reasons == [CancelReason.LEASE_LOST]


async def test_an_ack_wait_that_was_made_shorter_is_kept_by_the_next_job(url: str, name: str) -> None:
    starts = list[int]()

    async def perform(job: Job[Any]) -> None:
        starts.append(job.attempt)
        await anyio.sleep(4)

    defn = JobDef[Any](stream=name, perform=perform, consumer_config=ConsumerConfig(ack_wait=LONG))
    async with job_processor(url) as p, job_processor(url) as other:
        await p.start(defn)
        await other.start(defn)
        config = (await p.js.consumer_info(name, f"{name}Consumer")).config
        config.ack_wait = 2.0
        await p.js.add_consumer(name, config)
        await p.enqueue(defn, "x")
        await until_empty(p.js, name)
        await p.stop()
        await other.stop()

    assert starts == [1]


async def test_a_consumer_that_is_given_a_backoff_of_its_own_ends_the_processor(url: str, name: str) -> None:
    """The server would then take the deadlines of deliveries from it, and not from `ack_wait`."""
    held = Held(name)
    with pytest.raises(ConfigMismatch, match="backoff"), anyio.fail_after(LIMIT):
        async with job_processor(url) as p:
            await hold_one(p, held)
            info = await p.api.consumer(name, f"{name}Consumer")
            await p.api.update_consumer(name, info.config | {"backoff": [1_000_000_000, 2_000_000_000]})
            await anyio.sleep_forever()


async def test_two_consumers_of_one_name_have_two_tokens(url: str, name: str) -> None:
    held = Held(name)
    async with job_processor(url) as p:
        handle = await hold_one(p, held)
        before = engine_of(handle).consumer.token
        await p.js.delete_consumer(name, f"{name}Consumer")
        held.cut = 2
        await until(lambda: held.reasons and handle.running)
        assert engine_of(handle).consumer.token != before
        await p.stop(grace=0)
