"""What operators and strangers do to a consumer: delete and create it again, edit it, publish garbage, fill its dead letters."""

from __future__ import annotations

import random
import time

import anyio

from nats_jobs import JobProcessor
from nats_jobs.dead_letters import STREAM as DEAD_LETTERS
from nats_jobs.errors import ApiError, NatsJobsError
from nats_jobs.jobs._bound_consumer import token_of

from .checker import Outage
from .nemesis import Fault

__all__ = ("ConsumerFaults",)

# Seconds. Workers wait for 2 before they set a consumer up themselves.
_MAX_ABSENCE = 3.0
_GARBAGE = (
    b"",
    b"9" * 5000 + b" 1 x",
    b"1 " + b"9" * 400 + b" x",
    b"[" * 5000,
    b"\xff\x00",
    b'{"stream_seq":"x"}',
)


class ConsumerFaults:
    """Of the one consumer of a run. `outages` is for the checker: then deliveries or extensions were forgotten."""

    def __init__(self, onlooker: JobProcessor, stream: str, ack_wait: float) -> None:
        self.outages: list[Outage] = []
        self._p = onlooker
        self._stream = stream
        self._consumer = f"{stream}Consumer"
        self._ack_wait = ack_wait

    def all(self) -> list[Fault]:
        return [self.recreate_consumer, self.edit_ack_wait, self.publish_garbage, self.fill_dead_letters]

    async def recreate_consumer(self, rng: random.Random) -> None:
        """At once, or so late that the workers were quicker. All that was delivered is forgotten."""
        began = time.monotonic()
        try:
            config = (await self._p.api.consumer(self._stream, self._consumer)).config
            await self._p.api.request(f"CONSUMER.DELETE.{self._stream}.{self._consumer}")
        except NatsJobsError:
            # The server is down just now, or another worker is creating it.
            return

        await anyio.sleep(rng.choice([0.0, 0.0, rng.uniform(0, _MAX_ABSENCE)]))
        await self._create(config)
        self.outages.append(Outage(began, time.monotonic()))

    async def edit_ack_wait(self, rng: random.Random) -> None:
        """For a while it is half as long, or twice. A worker that is held up meanwhile cannot know."""
        began = time.monotonic()
        factor = rng.choice([0.5, 0.75, 2.0])
        if await self._set_ack_wait(self._ack_wait * factor):
            await anyio.sleep(self._ack_wait * rng.uniform(0.5, 2.0))
            while not await self._set_ack_wait(self._ack_wait):
                await anyio.sleep(0.5)

            self.outages.append(Outage(began, time.monotonic()))

    async def publish_garbage(self, rng: random.Random) -> None:
        """On every subject that workers listen to and anybody may publish on."""
        place = f"{self._stream}.{self._consumer}"
        advisories = "$JS.EVENT.ADVISORY.CONSUMER"
        try:
            token = token_of(await self._p.api.consumer(self._stream, self._consumer))
            subjects = [
                f"{advisories}.{what}.{place}" for what in ("MAX_DELIVERIES", "DELETED", "CREATED")
            ] + [f"nats_jobs.claims.{place}.{token}"]
            for subject in subjects:
                for data in _GARBAGE:
                    await self._p.connection.publish(subject, data)
        except NatsJobsError:
            return

    async def fill_dead_letters(self, rng: random.Random) -> None:
        """For longer than a lease nothing can be parked. It is tried until it can, so nothing may be lost."""
        try:
            info = await self._p.api.stream(DEAD_LETTERS)
            full = {"max_msgs": max(1, info.state["messages"]), "discard": "new"}
            await self._p.api.update_stream(info.config | full)
        except NatsJobsError:
            return

        await anyio.sleep(self._ack_wait * rng.uniform(0.5, 2.0))
        while not await self._restore_dead_letters(info.config):
            await anyio.sleep(0.5)

    async def _restore_dead_letters(self, config: dict[str, object]) -> bool:
        try:
            await self._p.api.update_stream(config)
        except NatsJobsError:
            return False

        return True

    async def _create(self, config: dict[str, object]) -> None:
        while True:
            try:
                await self._p.api.create_consumer(self._stream, config)
                return
            except ApiError:
                # A worker was quicker.
                return
            except NatsJobsError:
                await anyio.sleep(0.5)

    async def _set_ack_wait(self, seconds: float) -> bool:
        try:
            config = (await self._p.api.consumer(self._stream, self._consumer)).config
            await self._p.api.update_consumer(self._stream, config | {"ack_wait": int(seconds * 1e9)})
        except NatsJobsError:
            return False

        return True
