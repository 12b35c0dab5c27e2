"""TLS in each of its forms against real servers; and every failure says what to do."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Unpack

import anyio
import pytest
from anyio.abc import SocketStream

from nats_jobs.errors import ConnectFailed, UsageError
from nats_jobs.server import Server, run_server
from nats_jobs.wire import Connection, ConnectOptions, Options, connect
from support.certificates import Certificates
from support.connections import LIMIT, quick, until
from support.peer import INFO, receive_until, scripted_peer
from support.servers import free_port, running_server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def upgrading(certificates: Certificates) -> Iterator[Server]:
    """Its certificate has the name localhost, and no address."""
    with running_server(certificates.server_tls("localhost")) as server:
        yield server


@pytest.fixture(scope="module")
def tls_first(certificates: Certificates) -> Iterator[Server]:
    with running_server(certificates.server_tls("localhost", more="handshake_first: true")) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(certificates: Certificates) -> Iterator[Server]:
    with running_server(certificates.server_tls("localhost", more="verify: true")) as server:
        yield server


def named(server: Server, scheme: str = "nats") -> str:
    return f"{scheme}://localhost:{server.port}"


async def use(url: str, **options: Unpack[ConnectOptions]) -> None:
    """Connect and send so much both ways that many TLS records are needed."""
    payload = bytes(range(256)) * 2000
    with anyio.fail_after(LIMIT):
        async with connect(url, **quick(**options)) as nc, nc.subscribe("mirror") as mirror:
            await nc.publish("mirror", payload)
            async for message in mirror:
                assert message.data == payload
                break


async def failure(url: str, **options: Unpack[ConnectOptions]) -> str:
    """Return the reason in the `ConnectFailed` of one server."""
    with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed) as caught:
        async with connect(url, **quick(**options)):
            pass

    ((_, reason),) = caught.value.reasons
    assert reason in str(caught.value)
    return reason


# The three modes...


async def test_the_server_asks_for_tls_after_info(upgrading: Server, certificates: Certificates) -> None:
    await use(named(upgrading), tls=certificates.trusting())
    await use(named(upgrading, "tls"), tls=certificates.trusting())


async def test_tls_may_come_before_info(tls_first: Server, certificates: Certificates) -> None:
    await use(named(tls_first), tls=certificates.trusting(), tls_handshake_first=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_sides_may_need_a_certificate(
    mutual: Server, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.as_client("ann@example.org")
    context.minimum_version = context.maximum_version = version
    await use(named(mutual), tls=context)


async def test_a_server_where_tls_is_optional_uses_it_when_asked(certificates: Certificates) -> None:
    config = certificates.server_tls("localhost") + "\nallow_non_tls: true"
    async with run_server(config=config, jetstream=False) as server:
        await use(server.url)
        async with connect(named(server, "tls"), **quick(tls=certificates.trusting())) as nc:
            assert nc.server_info["tls_available"]

        assert "certificate verify failed" in await failure(named(server, "tls"))


async def test_the_trust_store_of_the_system_is_used_unless_a_context_is_given(
    upgrading: Server, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "unable to get local issuer certificate" in await failure(named(upgrading))

    # What OpenSSL looks at on every system, so the same code path.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority_file))
    await use(named(upgrading))


def test_the_trust_store_is_read_once_for_a_connection() -> None:
    options = Options()
    assert options.ssl_context is options.ssl_context
    given = ssl.create_default_context()
    assert Options(tls=given).ssl_context is given


# Names...


async def test_the_certificate_must_carry_the_name_in_the_url(
    upgrading: Server, certificates: Certificates
) -> None:
    reason = await failure(upgrading.url, tls=certificates.trusting())
    assert reason.startswith("certificate verify failed: IP address mismatch")
    assert reason.endswith("connect by a name in it, or give that name as tls_hostname")


async def test_tls_hostname_takes_the_place_of_the_name_in_the_url(
    upgrading: Server, certificates: Certificates
) -> None:
    await use(upgrading.url, tls=certificates.trusting(), tls_hostname="localhost")
    reason = await failure(
        named(upgrading), tls=certificates.trusting(), tls_hostname="elsewhere.example.org"
    )
    assert reason.startswith("certificate verify failed: Hostname mismatch")
    assert "'elsewhere.example.org'" in reason
    assert reason.endswith("connect by a name in the certificate, or give that name as tls_hostname")


async def test_a_discovered_address_is_verified_by_the_name_that_led_to_it(
    certificates: Certificates,
) -> None:
    routes = free_port()
    tls = certificates.server_tls("localhost")
    first = f"{tls}\ncluster {{ name: two, listen: '127.0.0.1:{routes}' }}"
    second = f"{tls}\ncluster {{ name: two, listen: '127.0.0.1:-1', routes: ['nats://127.0.0.1:{routes}'] }}"
    async with (
        run_server(config=first, jetstream=False, args=["--server_name", "a"]) as a,
        run_server(config=second, jetstream=False, args=["--server_name", "b"]) as b,
        connect(named(a), **quick(tls=certificates.trusting())) as nc,
    ):
        await until(lambda: f"127.0.0.1:{b.port}" in nc.server_info.get("connect_urls", ()))
        a.kill()
        await until(lambda: nc.connected and nc.server_info["server_name"] == "b")
        await nc.flush()


@asynccontextmanager
async def a_plain_one_besides(
    certificates: Certificates, **options: Unpack[ConnectOptions]
) -> AsyncIterator[tuple[Server, Connection]]:
    """A connection to a server that asks for TLS, of a cluster whose other server, `b`, speaks none."""
    routes = free_port()
    users = "authorization { user: ann, password: secret }"
    first = f"{users}\n{certificates.server_tls('localhost')}\ncluster {{ name: two, listen: '127.0.0.1:{routes}' }}"
    second = (
        f"{users}\ncluster {{ name: two, listen: '127.0.0.1:-1', routes: ['nats://127.0.0.1:{routes}'] }}"
    )
    async with (
        run_server(config=first, jetstream=False, args=["--server_name", "a"]) as a,
        run_server(config=second, jetstream=False, args=["--server_name", "b"]) as b,
        connect(named(a).replace("://", "://ann:secret@"), **quick(**options)) as nc,
    ):
        await until(lambda: f"127.0.0.1:{b.port}" in nc.server_info.get("connect_urls", ()))
        yield a, nc


async def test_a_discovered_server_without_tls_is_not_sent_the_credentials_that_went_through_tls(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority_file))
    with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed, match="plain text"):
        async with a_plain_one_besides(certificates, max_reconnect_attempts=2) as (a, _):
            a.kill()
            await anyio.sleep_forever()


async def test_a_discovered_server_without_tls_is_used_when_that_is_asked_for(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority_file))
    async with a_plain_one_besides(certificates, allow_plain_discovered=True) as (a, nc):
        a.kill()
        await until(lambda: nc.connected and nc.server_info["server_name"] == "b")
        await nc.flush()


# Failures say what to do...


async def test_an_unknown_issuer_is_named_with_the_way_to_trust_it(upgrading: Server) -> None:
    reason = await failure(named(upgrading, "tls"))
    assert reason.startswith("certificate verify failed: unable to get local issuer certificate")
    assert "tls=ssl.create_default_context(cafile=" in reason


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_missing_client_certificate_is_named(
    mutual: Server, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.trusting()
    context.minimum_version = context.maximum_version = version
    assert "client certificate" in await failure(named(mutual), tls=context)


async def test_a_client_certificate_of_another_authority_is_named(
    mutual: Server, certificates: Certificates, tmp_path: Path
) -> None:
    context = Certificates(tmp_path).as_client("eve@example.org")
    context.load_verify_locations(certificates.authority_file)
    assert "client certificate that it trusts" in await failure(named(mutual), tls=context)


async def test_asking_for_tls_where_there_is_none_is_refused(url: str) -> None:
    for scheme, options in (
        ("tls", ConnectOptions()),
        ("nats", ConnectOptions(tls=ssl.create_default_context())),
        ("nats", ConnectOptions(tls_hostname="localhost")),
    ):
        reason = await failure(url.replace("nats", scheme), **options)
        assert reason == "the server offers no TLS, and TLS was asked for"


async def test_tls_first_at_a_server_that_speaks_first_says_so(url: str) -> None:
    assert "tls_handshake_first=False" in await failure(url, tls_handshake_first=True)


async def test_waiting_for_info_where_tls_comes_first_says_so(
    tls_first: Server, certificates: Certificates
) -> None:
    reason = await failure(named(tls_first), tls=certificates.trusting(), connect_timeout=0.5)
    assert reason.startswith("no INFO")
    assert "tls_handshake_first=True" in reason
    assert reason.endswith("within 0.5 s")


async def test_a_context_that_is_none_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(UsageError, match=r"tls is a bool: give an ssl.SSLContext"):
        Options.build({"tls": True})  # type: ignore[typeddict-item]


# Peers that mean no good...

TLS_INFO = INFO.replace(b"{", b'{"tls_required":true,')


async def test_what_stands_between_info_and_the_handshake_is_not_taken_for_the_servers() -> None:
    async def script(stream: SocketStream) -> None:
        await stream.send(TLS_INFO + b"PONG\r\n")

    async with scripted_peer(script) as peer:
        assert "sent data between INFO and the TLS handshake" in await failure(peer.url)
        await peer.wait_all_gone()


async def test_a_peer_that_closes_in_the_handshake_is_a_failure() -> None:
    async def script(stream: SocketStream) -> None:
        await stream.send(TLS_INFO)
        await stream.receive()
        await stream.aclose()

    async with scripted_peer(script) as peer:
        assert "closed by the server during the TLS handshake" in await failure(peer.url)


async def test_a_peer_that_answers_the_handshake_with_something_else_is_a_failure() -> None:
    async def script(stream: SocketStream) -> None:
        await stream.send(TLS_INFO)
        await stream.receive()
        await stream.send(b"+OK\r\nthis is no TLS record at all\r\n")

    async with scripted_peer(script) as peer:
        assert (await failure(peer.url)).startswith("TLS failed: ")
        await peer.wait_all_gone()


async def test_a_handshake_that_is_never_answered_ends_with_connect_timeout() -> None:
    async def script(stream: SocketStream) -> None:
        await stream.send(TLS_INFO)

    async with scripted_peer(script) as peer:
        assert await failure(peer.url, connect_timeout=0.5) == "no TLS handshake within 0.5 s"
        await peer.wait_all_gone()


@pytest.mark.parametrize("first", [False, True], ids=["upgrade", "first"])
async def test_cancelling_in_the_handshake_leaves_no_socket(first: bool) -> None:
    shaking = anyio.Event()

    async def script(stream: SocketStream) -> None:
        if not first:
            await stream.send(TLS_INFO)

        await receive_until(stream, b"\x16\x03")  # how a handshake record begins
        shaking.set()

    async with scripted_peer(script) as peer, anyio.create_task_group() as tasks:
        tasks.start_soon(connect_for_ever, peer.url, first)
        with anyio.fail_after(LIMIT):
            await shaking.wait()

        tasks.cancel_scope.cancel("the test asks for it")
        with anyio.CancelScope(shield=True):
            await peer.wait_all_gone()


async def connect_for_ever(url: str, handshake_first: bool) -> None:
    async with connect(url, connect_timeout=600, tls_handshake_first=handshake_first):
        raise AssertionError("it cannot be connected")
