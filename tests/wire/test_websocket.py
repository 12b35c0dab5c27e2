"""NATS through WebSocket: the same connection over ws:// and wss://, and peers that do it wrongly."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar, Unpack

import anyio
import pytest
from anyio.abc import SocketStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)

from nats_jobs.errors import AuthorizationFailed, ConnectFailed, UsageError
from nats_jobs.server import Server, run_server
from nats_jobs.wire import Connection, ConnectOptions, connect
from support.certificates import Certificates
from support.connections import LIMIT, quick, until
from support.peer import INFO, Peer, Script, receive_until, scripted_peer
from support.servers import running_server

pytestmark = pytest.mark.anyio

E = TypeVar("E", bound=Event)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    with running_server("websocket { listen: '127.0.0.1:-1', no_tls: true, compression: true }") as server:
        yield server


@pytest.fixture(scope="module")
def secured(certificates: Certificates) -> Iterator[Server]:
    tls = certificates.server_tls("localhost")
    with running_server(f"websocket {{ listen: '127.0.0.1:-1', {tls} }}") as server:
        yield server


def websocket_url(server: Server, scheme: str = "ws", host: str = "127.0.0.1") -> str:
    found = re.search(r"Listening for websocket clients on wss?://[^:]+:(\d+)", server.logs())
    assert found is not None
    return f"{scheme}://{host}:{found[1]}"


# A real server...


async def use(url: str, **options: Unpack[ConnectOptions]) -> None:
    """Send small and large messages through, and a request."""
    with anyio.fail_after(LIMIT):
        async with connect(url, **quick(**options)) as nc, nc.subscribe("mirror.>") as mirror:
            sizes = [0, 1, 125, 126, 65_535, 65_536, 1_000_000]
            for size in sizes:
                await nc.publish(f"mirror.{size}", bytes([size % 256]) * size, headers={"Size": str(size)})

            for size in sizes:
                message = await anext(aiter(mirror))
                assert message.subject == f"mirror.{size}"
                assert message.data == bytes([size % 256]) * size

            await answered_request(nc)


async def answered_request(nc: Connection) -> None:
    async with anyio.create_task_group() as tasks, nc.subscribe("echo") as questions:

        async def answer() -> None:
            question = await anext(aiter(questions))
            await nc.publish(question.reply, question.data)

        tasks.start_soon(answer)
        reply = await nc.request("echo", b"hello", timeout=LIMIT)
        assert reply.data == b"hello"


async def test_a_connection_works_over_ws(plain: Server) -> None:
    await use(websocket_url(plain))


async def test_a_connection_works_over_wss_with_a_verified_certificate(
    secured: Server, certificates: Certificates
) -> None:
    await use(websocket_url(secured, "wss", "localhost"), tls=certificates.trusting())
    with pytest.raises(ConnectFailed, match="certificate verify failed: IP address mismatch"):
        await use(websocket_url(secured, "wss"), tls=certificates.trusting())


async def test_many_messages_at_once_keep_their_order(plain: Server) -> None:
    async with connect(websocket_url(plain), **quick()) as nc, nc.subscribe("many") as many:
        for number in range(5000):
            await nc.publish("many", str(number).encode())

        with anyio.fail_after(LIMIT):
            assert [int((await anext(aiter(many))).data) for _ in range(5000)] == list(range(5000))


async def test_user_and_password_work_as_over_tcp() -> None:
    config = "authorization { user: ann, password: pw }\nwebsocket { listen: '127.0.0.1:-1', no_tls: true }"
    async with run_server(config=config, jetstream=False) as server:
        url = websocket_url(server)
        await use(url.replace("://", "://ann:pw@"))
        with pytest.raises(AuthorizationFailed):
            await use(url, user="ann", password="wrong")


async def test_the_plain_port_is_no_websocket_port(url: str) -> None:
    with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed, match="is it the server's websocket port"):
        async with connect(url.replace("nats", "ws"), **quick()):
            pass


async def test_ws_is_not_used_where_tls_was_asked_for(plain: Server) -> None:
    for options in (
        ConnectOptions(tls=ssl.create_default_context()),
        ConnectOptions(tls_hostname="localhost"),
    ):
        with pytest.raises(UsageError, match="the scheme for WebSocket with TLS is wss"):
            async with connect(websocket_url(plain), **quick(**options)):
                pass


def test_without_the_extra_it_says_what_to_install() -> None:
    program = """
import sys, socket, anyio
sys.modules["wsproto"] = None  # as if it were not installed
from nats_jobs.wire import connect
async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}"):
            pass
anyio.run(main)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith(
        "needs an optional package: pip install 'nats-jobs[websocket]'"
    )


# A scripted one...


class WebSocketPeer:
    """The server's side of one WebSocket, by hand."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self.protocol = WSConnection(ConnectionType.SERVER)
        self.request = Request("", "")
        self.received = bytearray()

    async def greet(self) -> None:
        self.request = await self.next(Request)
        # INFO right behind the acceptance, in the same segment.
        await self.send(AcceptConnection(), BytesMessage(INFO))
        await self.receive_until(b"PING\r\n")
        await self.send(BytesMessage(b"PONG\r\n"))

    async def send(self, *events: Event) -> None:
        await self.stream.send(b"".join(self.protocol.send(event) for event in events))

    async def next(self, kind: type[E]) -> E:
        """Return the next event of this kind. What comes in messages before it is kept."""
        while True:
            for event in self.protocol.events():
                if isinstance(event, BytesMessage):
                    self.received += event.data

                if isinstance(event, kind):
                    return event

            self.protocol.receive_data(await self.stream.receive())

    async def receive_until(self, end: bytes) -> None:
        while end not in self.received:
            await self.next(BytesMessage)


def after_greeting(script: Callable[[WebSocketPeer], Awaitable[None]]) -> Script:
    async def serve(stream: SocketStream) -> None:
        peer = WebSocketPeer(stream)
        await peer.greet()
        await script(peer)

    return serve


@asynccontextmanager
async def connected_to(
    script: Callable[[WebSocketPeer], Awaitable[None]], **options: Unpack[ConnectOptions]
) -> AsyncIterator[tuple[Peer, Connection]]:
    async with (
        scripted_peer(after_greeting(script)) as peer,
        connect(
            peer.url.replace("nats", "ws"), **quick(**(ConnectOptions(drain_timeout=0.1) | options))
        ) as nc,
    ):
        yield peer, nc


async def wait(event: anyio.Event) -> None:
    with anyio.fail_after(LIMIT):
        await event.wait()


async def test_path_and_headers_go_into_the_handshake() -> None:
    requests: list[Request] = []

    async def script(stream: SocketStream) -> None:
        peer = WebSocketPeer(stream)
        await peer.greet()
        requests.append(peer.request)

    async with scripted_peer(script) as peer:
        url = f"ws://127.0.0.1:{peer.port}/nats/in?zone=1"
        headers = {"Authorization": ["Bearer x"], "X-Two": ["1", "2"]}
        async with connect(url, **quick(ws_connection_headers=headers, drain_timeout=0.1)):
            pass

    (request,) = requests
    assert request.target == "/nats/in?zone=1"
    assert request.host == f"127.0.0.1:{peer.port}"
    assert [value for name, value in request.extra_headers if name == b"authorization"] == [b"Bearer x"]
    assert [value for name, value in request.extra_headers if name == b"x-two"] == [b"1", b"2"]


async def test_a_ping_is_answered_with_its_payload() -> None:
    answered = anyio.Event()

    async def script(peer: WebSocketPeer) -> None:
        await peer.send(Ping(b"are you there"))
        pong = await peer.next(Pong)
        assert bytes(pong.payload) == b"are you there"
        answered.set()

    async with connected_to(script):
        await wait(answered)


async def test_a_ping_in_the_middle_of_a_stuck_send_breaks_no_frame() -> None:
    """The reader must neither wait for the writer nor put its answer into the writer's frame."""
    stuck, done = anyio.Event(), anyio.Event()
    payload = bytes(range(256)) * 4000

    async def script(peer: WebSocketPeer) -> None:
        await stuck.wait()
        await peer.send(Ping(b"1"), Ping(b"2"), BytesMessage(b'INFO {"max_payload":1048575}\r\n'))
        await heard.wait()
        pong = await peer.next(Pong)
        assert bytes(pong.payload) in (b"1", b"2")
        await peer.receive_until(b"PUB last")
        assert peer.received.count(payload) == 16
        done.set()

    heard = anyio.Event()
    async with connected_to(script, pending_size=64 * 1024 * 1024) as (_, nc):
        for _ in range(16):
            await nc.publish("much", payload)

        await nc.publish("last")
        await anyio.wait_all_tasks_blocked()
        stuck.set()
        await until(lambda: nc.max_payload == 1048575)

        # The reader went on, though the writer has been waiting for the peer all the time.
        assert nc.statistics().bytes_out < 16 * len(payload)
        heard.set()
        await wait(done)


async def test_messages_may_come_in_fragments_and_bytes() -> None:
    async def script(peer: WebSocketPeer) -> None:
        await peer.receive_until(b"SUB news")
        sid = bytes(peer.received).partition(b"SUB news ")[2].split()[0]
        frames = [
            BytesMessage(b"MSG news ", message_finished=False),
            BytesMessage(b"", message_finished=False),
            BytesMessage(sid + b" 5\r\nhe", message_finished=False),
            Ping(b"in between"),
            BytesMessage(b"llo\r\nMSG ne", message_finished=True),
            BytesMessage(b"ws " + sid + b" 5\r\nworld\r\n"),
        ]
        for byte in b"".join(peer.protocol.send(frame) for frame in frames):
            await peer.stream.send(bytes([byte]))

    async with connected_to(script) as (_, nc), nc.subscribe("news") as news:
        with anyio.fail_after(LIMIT):
            assert [(await anext(aiter(news))).data for _ in range(2)] == [b"hello", b"world"]


@pytest.mark.parametrize("how", ["close", "text", "garbage", "masked", "cut"])
async def test_a_peer_that_ends_or_breaks_the_protocol_is_left_and_the_link_mended(how: str) -> None:
    async def script(peer: WebSocketPeer) -> None:
        # Not in the greeting any more.
        await peer.receive_until(b"SUB _INBOX")
        match how:
            case "close":
                await peer.send(CloseConnection(code=1001, reason="going away"))
                closing = await peer.next(CloseConnection)
                assert closing.code == 1001
            case "text":
                await peer.send(TextMessage("PING\r\n"))
            case "garbage":
                await peer.stream.send(b"\xff" * 100)
            case "masked":
                await peer.stream.send(b"\x82\x84abcdwxyz")
            case "cut":
                await peer.stream.send(b"\x82\x7e")
                await peer.stream.aclose()

    async with connected_to(script) as (peer, nc):
        await until(lambda: nc.reconnects >= 2)

    await peer.wait_all_gone(2)


def raw(answer: bytes) -> Script:
    async def script(stream: SocketStream) -> None:
        await receive_until(stream, b"\r\n\r\n")
        await stream.send(answer)

    return script


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "HTTP status 403"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP status 200"),
        (SWITCH + b"Sec-WebSocket-Accept: wrong\r\n\r\n", "Bad accept token"),
        (SWITCH + b"\r\n", "Bad accept token"),
        (INFO + b"\r\n", "Bad HTTP message"),
        (b"x" * 200_000, "Bad HTTP message"),
    ],
)
async def test_a_handshake_that_is_refused_or_wrong_is_a_failure_in_words(answer: bytes, reason: str) -> None:
    async with scripted_peer(raw(answer)) as peer:
        with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed, match=reason):
            async with connect(peer.url.replace("nats", "ws"), **quick()):
                pass

        await peer.wait_all_gone()


async def test_a_handshake_that_is_not_answered_ends_with_connect_timeout() -> None:
    async with scripted_peer(raw(b"")) as peer:
        with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed) as caught:
            async with connect(peer.url.replace("nats", "ws"), connect_timeout=0.3):
                pass

        await peer.wait_all_gone()

    assert "no answer to the WebSocket handshake" in str(caught.value)
    assert "within 0.3 s" in str(caught.value)


async def test_cancelling_in_the_handshake_leaves_no_socket() -> None:
    reached = anyio.Event()

    async def script(stream: SocketStream) -> None:
        await receive_until(stream, b"\r\n\r\n")
        reached.set()

    async def connect_for_ever(url: str) -> None:
        async with connect(url, connect_timeout=600):
            raise AssertionError("it cannot be connected")

    async with scripted_peer(script) as peer, anyio.create_task_group() as tasks:
        tasks.start_soon(connect_for_ever, peer.url.replace("nats", "ws"))
        await wait(reached)
        tasks.cancel_scope.cancel("the test asks for it")
        with anyio.CancelScope(shield=True):
            await peer.wait_all_gone()
