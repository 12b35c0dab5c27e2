"""A real cluster: three nats-server processes on this machine, with all that can happen to them."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import anyio
from nats.js.client import JetStreamContext
from nats.js.errors import Error as JetStreamError

from nats_jobs.errors import NatsJobsError, ServerFailed
from nats_jobs.server import Server, run_server
from support.jobs import until
from support.routes import Routes, open_routes

# Seconds. An election alone takes 4 to 9, and a machine may be slow.
ELECTION_LIMIT = 90.0
_ONE_TRY = 20.0
_TRIES = 3

# A node in lame duck mode stays for the grace period: whoever has left before left on its own accord.
_CONFIG = """
server_name: {name}
http: 127.0.0.1:{http}
lame_duck_grace_period: 25s
lame_duck_duration: 30s
cluster {{
  name: jobs
  listen: 127.0.0.1:{route}
  routes: [{routes}]
  {more}
}}
"""

# Nodes that told of each other would lead clients around the proxies; and nodes, which tell each other in any case,
# are told of an address at which nobody listens.
_PROXIED = "no_advertise: true, advertise: '127.0.0.1:1'"


class Node:
    """One server of a cluster."""

    def __init__(self, name: str, server: Server, http: int) -> None:
        self.name = name
        self._server = server
        self._http = http

    def __repr__(self) -> str:
        return f"<{self.name} of the cluster, {self._server!r}>"

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def running(self) -> bool:
        return self._server.running

    def logs(self) -> str:
        return self._server.logs()

    async def kill(self) -> None:
        """Let it die at once, as by a crash."""
        self._server.kill()
        await self._server.wait_exited()

    async def terminate(self) -> None:
        """Let it leave in order."""
        self._server.terminate()
        await self._server.wait_exited()

    def lame_duck(self) -> None:
        """Let it take no new client, and tell those it has to go elsewhere."""
        self._server.signal(signal.SIGUSR2)

    async def restart(self) -> None:
        """Start it again, and wait until it has caught up with the others."""
        await self._server.restart()
        await self.wait_healthy()

    async def wait_healthy(self, seconds: float = ELECTION_LIMIT) -> None:
        """Wait until it knows a meta leader and all its streams and consumers are up to date."""
        await until(self._is_healthy, seconds)

    async def clients(self) -> int:
        """Return how many clients are connected to it."""
        _, text = await _get(self._http, "/connz")
        return int(json.loads(text)["num_connections"])

    async def _is_healthy(self) -> bool:
        try:
            with anyio.move_on_after(_ONE_TRY):
                status, _ = await _get(self._http, "/healthz")
                return status == 200
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            pass

        return False


class Cluster:
    """Its nodes, and who leads what."""

    def __init__(self, nodes: list[Node], routes: Routes | None = None) -> None:
        self.nodes = nodes
        self._routes = routes

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def others(self, *these: Node) -> list[Node]:
        return [node for node in self.nodes if node not in these]

    async def wait_healthy(self) -> None:
        """Wait until each node is."""
        for node in self.nodes:
            await node.wait_healthy()

    def isolate(self, node: Node) -> None:
        """Part a node from the others; its clients still reach it. For a cluster that runs with `proxied`."""
        assert self._routes is not None
        self._routes.isolate(self.nodes.index(node))

    def unite(self) -> None:
        """Let all nodes reach each other again."""
        assert self._routes is not None
        self._routes.unite()

    async def stream_leader(self, js: JetStreamContext, stream: str) -> Node:
        """Wait until a running node leads the stream, and return it."""
        return await self._leader(js, f"STREAM.INFO.{stream}")

    async def consumer_leader(self, js: JetStreamContext, stream: str, consumer: str) -> Node:
        """Wait until a running node leads the consumer, and return it."""
        return await self._leader(js, f"CONSUMER.INFO.{stream}.{consumer}")

    async def move_consumer_leader(self, js: JetStreamContext, stream: str, consumer: str) -> None:
        """Let the consumer's leader step down."""
        await ask_api(js, f"CONSUMER.LEADER.STEPDOWN.{stream}.{consumer}")

    async def _leader(self, js: JetStreamContext, call: str) -> Node:
        found: list[Node] = []

        async def known() -> bool:
            try:
                about = (await ask_api(js, call)).get("cluster") or {}
            except (JetStreamError, NatsJobsError):
                return False

            found[:] = [node for node in self.nodes if node.name == about.get("leader") and node.running]
            return bool(found)

        await until(known, ELECTION_LIMIT)
        return found[0]


async def ask_api(js: JetStreamContext, call: str) -> dict[str, Any]:
    """Ask JetStream's API. nats-py's dataclasses leave some of an answer out."""
    answer: dict[str, Any] = await js._api_request(f"$JS.API.{call}", b"", timeout=2)
    return answer


@asynccontextmanager
async def run_cluster(size: int = 3, *, proxied: bool = False) -> AsyncIterator[Cluster]:
    """Run a cluster with JetStream; it has a meta leader when the block begins, and is gone when it is left.

    Args:
        proxied: whether nodes reach each other by proxies, so that one can be isolated. Clients may be behind
            proxies, too: they are not told of the other nodes, which would lead them around.
    """
    async with AsyncExitStack() as stack:
        cluster = await _start(stack, size, proxied)
        await cluster.wait_healthy()
        yield cluster


async def _start(stack: AsyncExitStack, size: int, proxied: bool) -> Cluster:
    """Start all nodes; start over when somebody else took one of the ports meanwhile."""
    for tries_left in reversed(range(_TRIES)):
        async with AsyncExitStack() as attempt:
            try:
                cluster = await _start_nodes(attempt, size, proxied)
            except ServerFailed as error:
                if not tries_left or "address already in use" not in str(error):
                    raise
            else:
                stack.push_async_callback(attempt.pop_all().aclose)
                return cluster

    raise AssertionError("the last try returns or raises")


async def _start_nodes(stack: AsyncExitStack, size: int, proxied: bool) -> Cluster:
    ports = _free_ports(2 * size)
    listening, monitors = ports[:size], ports[size:]
    routes = await open_routes(stack, listening) if proxied else None
    nodes = []
    for number, (route, http) in enumerate(zip(listening, monitors, strict=True)):
        known = listening if routes is None else routes.calls(number)
        config = _CONFIG.format(
            name=f"c{number}",
            http=http,
            route=route,
            routes=", ".join(f"nats://127.0.0.1:{port}" for port in known),
            more="" if routes is None else _PROXIED,
        )
        # A node that leaves in order hands its leaderships over first.
        server = await stack.enter_async_context(run_server(config=config, start_timeout=60, stop_timeout=20))
        nodes.append(Node(f"c{number}", server, http))

    return Cluster(nodes, routes)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        # All are held until all are found, or one could be found twice.
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))

        return [probe.getsockname()[1] for probe in probes]


async def _get(port: int, path: str) -> tuple[int, bytes]:
    """Ask the monitoring port of a server."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET %b HTTP/1.0\r\n\r\n" % path.encode())
        received = b""
        while b"\r\n\r\n" not in received or len(received) < _length(received):
            received += await stream.receive()

    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def _length(received: bytes) -> int:
    """Return the length of a whole answer, by what its head says."""
    head, mark, _ = received.partition(b"\r\n\r\n")
    lengths = [
        line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    ]
    return len(head) + len(mark) + int(lengths[0])
