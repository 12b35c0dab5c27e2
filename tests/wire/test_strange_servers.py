"""A server that does whatever it likes, at any time: the connection works, comes back, or ends with an error in words.

Hypothesis writes what the server, or whoever sits in between, does on one link after the other. Meanwhile the
connection is used for everything: whoever waits must come to an end, and nothing may be raised but the library's
own errors. `NATS_JOBS_LONG=1` plays more of it; `nox -s wire` does.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from hypothesis import HealthCheck, given, settings, strategies as st

from nats_jobs.errors import NatsJobsError
from nats_jobs.wire import Connection, connect
from support.connections import LIMIT, quick
from support.peer import INFO, leave, receive_until, scripted_peer

EXAMPLES = 300 if os.environ.get("NATS_JOBS_LONG") else 15
BACKENDS: list[tuple[str, dict[str, Any]]] = [
    ("asyncio", {}),
    ("asyncio", {"use_uvloop": True}),
    ("trio", {}),
]

said = st.one_of(
    st.sampled_from(
        [
            b"PING\r\n",
            b"PONG\r\n",
            b"PONG\r\n" * 20,
            b"+OK\r\n",
            b"-ERR 'Stale Connection'\r\n",
            b"-ERR 'maximum subscriptions exceeded'\r\n",
            b"-ERR 'Permissions Violation for Publish to \"asked\"'\r\n",
            b"-ERR 'Permissions Violation for Subscription to \"heard\"'\r\n",
            b"-ERR\r\n",
            b"INFO {}\r\n",
            b'INFO {"ldm":true}\r\n',
            b'INFO {"ldm":true,"connect_urls":["127.0.0.1:1"]}\r\n',
            b'INFO {"max_payload":0,"connect_urls":{"a":1},"headers":5}\r\n',
            b'INFO {"max_payload":-1,"connect_urls":[1,null,"","[::1","a:b"]}\r\n',
            b"INFO []\r\n",
            b"MSG heard 2 3\r\nabc\r\n",
            b"MSG nobody 99 3\r\nabc\r\n",
            b"MSG heard 2 99999\r\nabc",
            b"HMSG heard 2 12 15\r\nNATS/1.0\r\n\r\nabc\r\n",
            b"HMSG heard 2 20 20\r\n" + b"\xff" * 20 + b"\r\n",
            b"MSG heard 2 -1\r\n",
            b"x" * 70_000,
        ]
    ),
    st.binary(max_size=40),
)
acts = st.one_of(
    said.map(lambda data: ("say", data)),
    st.sampled_from([("answer", b""), ("close", b""), ("reset", b""), ("deaf", b"")]),
)
lives = st.lists(st.lists(acts, max_size=5), min_size=1, max_size=4)


class Server:
    """Plays one list of acts for each client, in order; a good server from then on."""

    def __init__(self, scripts: list[list[tuple[str, bytes]]]) -> None:
        self.scripts = list(scripts)

    async def serve(self, stream: SocketStream) -> None:
        await stream.send(INFO)
        await receive_until(stream, b"PING\r\n")
        await stream.send(b"PONG\r\n")
        for act, data in self.scripts.pop(0) if self.scripts else ():
            match act:
                case "say":
                    await stream.send(data)
                case "answer":
                    received = await receive_until(stream, b"PING\r\n")
                    await stream.send(b"PONG\r\n" * received.count(b"PING\r\n"))
                case "deaf":
                    await anyio.sleep(0.1)
                case _:
                    await leave(stream, reset=act == "reset")
                    return

        await self._behave(stream)

    async def _behave(self, stream: SocketStream) -> None:
        while True:
            received = await receive_until(stream, b"PING\r\n")
            await stream.send(b"PONG\r\n" * received.count(b"PING\r\n"))


async def settled(use: Callable[[], Awaitable[object]]) -> None:
    """Whatever is waited for ends, and if with an error then with one of ours."""
    try:
        with anyio.fail_after(LIMIT):
            await use()
    except NatsJobsError:
        pass


async def use_everything(nc: Connection) -> None:
    async with anyio.create_task_group() as group, nc.subscribe("heard") as messages:
        group.start_soon(settled, lambda: nc.request("asked", b"x", timeout=0.3))
        group.start_soon(settled, lambda: nc.publish("told", b"x", headers={"A": "1"}))
        group.start_soon(settled, lambda: nc.flush(0.3))
        with anyio.move_on_after(0.05):
            await settled(messages.receive)

        await settled(messages.drain)


async def live(scripts: list[list[tuple[str, bytes]]]) -> None:
    server = Server(scripts)
    async with scripted_peer(server.serve) as peer:
        with anyio.fail_after(2 * LIMIT):
            try:
                async with connect(
                    peer.url, **quick(ping_interval=0.1, drain_timeout=0.2, reconnect_time_wait=0.02)
                ) as nc:
                    for _ in range(len(scripts)):
                        await use_everything(nc)

                    # Whatever that was: it finds a link that works in the end.
                    while not await _flushes(nc):
                        await anyio.sleep(0.02)
            except* NatsJobsError:
                # Given up, in words.
                pass

        await peer.wait_all_gone(0)


async def _flushes(nc: Connection) -> bool:
    try:
        await nc.flush(0.5)
    except NatsJobsError:
        return False

    return True


@pytest.mark.timeout(900)  # for the long form
@pytest.mark.parametrize(("backend", "options"), BACKENDS, ids=["asyncio", "uvloop", "trio"])
def test_whatever_a_server_does_the_connection_lives_or_ends_in_words(
    backend: str, options: dict[str, Any]
) -> None:
    @settings(
        max_examples=EXAMPLES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        deadline=None,
    )
    @given(lives)
    def play(scripts: list[list[tuple[str, bytes]]]) -> None:
        anyio.run(live, scripts, backend=backend, backend_options=options)

    play()
