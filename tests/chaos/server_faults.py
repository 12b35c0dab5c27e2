"""What happens to servers: the only one is killed; of three, leaders are killed and nodes are stopped."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
from nats.js.client import JetStreamContext

from nats_jobs import job_processor
from nats_jobs.server import Server
from support.cluster import Cluster, Node

from .checker import Outage
from .nemesis import Fault

__all__ = ("ClusterFaults", "ServerFaults")


class ServerFaults:
    """Of a single server. `outages` is for the checker, which must know when a server may have forgotten something."""

    def __init__(self, server: Server, ack_wait: float) -> None:
        self.outages: list[Outage] = []
        self._server = server
        self._ack_wait = ack_wait

    def all(self) -> list[Fault]:
        return [self.kill_server]

    async def kill_server(self, rng: random.Random) -> None:
        began = time.monotonic()
        self._server.kill()
        await self._server.wait_exited()
        await anyio.sleep(rng.uniform(0, self._ack_wait))
        await self._server.restart()
        self.outages.append(Outage(began, time.monotonic()))


@dataclass
class ClusterFaults:
    """Of three nodes. Only one is down at a time, and it has caught up before the next goes.

    An outage lasts until stream and consumer have a leader again: it is then that the new one may know less than
    the old one did. The node that comes back follows, and forgets nothing that counts.
    """

    cluster: Cluster
    js: JetStreamContext
    stream: str
    ack_wait: float

    def __post_init__(self) -> None:
        self.outages: list[Outage] = []

    def all(self) -> list[Fault]:
        return [self.kill_leader_of_stream, self.kill_leader_of_consumer, self.stop_node, self.isolate_leader]

    async def kill_leader_of_stream(self, rng: random.Random) -> None:
        node = await self._leader_of_stream()
        await self._without(node, node.kill, rng)

    async def kill_leader_of_consumer(self, rng: random.Random) -> None:
        node = await self._leader_of_consumer()
        await self._without(node, node.kill, rng)

    async def stop_node(self, rng: random.Random) -> None:
        """It leaves in order: what it leads, it hands over first."""
        node = rng.choice(self.cluster.nodes)
        await self._without(node, node.terminate, rng)

    async def isolate_leader(self, rng: random.Random) -> None:
        """The consumer's. It goes on for a while with whoever is connected to it, and the others elect another."""
        node = await self._leader_of_consumer()
        began = time.monotonic()
        self.cluster.isolate(node)
        try:
            await self._wait_replaced(node)
            await anyio.sleep(rng.uniform(0, self.ack_wait))
        finally:
            self.cluster.unite()

        await self.cluster.wait_healthy()
        await self._leader_of_consumer()
        self.outages.append(Outage(began, time.monotonic(), parted=True))

    async def _wait_replaced(self, node: Node) -> None:
        others = [other.url for other in self.cluster.others(node)]
        async with job_processor(others, reconnect_time_wait=0.5) as p:
            while node is await self.cluster.consumer_leader(p.js, self.stream, f"{self.stream}Consumer"):
                await anyio.sleep(0.1)

    async def _without(self, node: Node, leave: Callable[[], Awaitable[None]], rng: random.Random) -> None:
        began = time.monotonic()
        await leave()
        await self._leader_of_stream()
        await self._leader_of_consumer()
        self.outages.append(Outage(began, time.monotonic()))
        await anyio.sleep(rng.uniform(0, self.ack_wait))
        await node.restart()

    async def _leader_of_stream(self) -> Node:
        return await self.cluster.stream_leader(self.js, self.stream)

    async def _leader_of_consumer(self) -> Node:
        return await self.cluster.consumer_leader(self.js, self.stream, f"{self.stream}Consumer")
