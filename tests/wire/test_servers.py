"""The pool of servers: whose turn it is, who is in it, and how long to wait; URLs and what is never shown of them."""

from __future__ import annotations

import logging
import pickle
import socket
from typing import Any, Unpack
from urllib.parse import quote

import anyio
import pytest
from anyio.abc import SocketStream
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nats_jobs.errors import ConnectFailed, NatsJobsError, UsageError
from nats_jobs.server import run_server
from nats_jobs.wire import ConnectOptions, Options, connect
from nats_jobs.wire._options import server_urls
from nats_jobs.wire._servers import Server, ServerPool, parse_url
from nats_jobs.wire._transport import open_tcp
from support.connections import LIMIT, quick, reconnected, stay, until
from support.peer import INFO, receive_until, scripted_peer
from support.servers import free_port

pytestmark = pytest.mark.anyio


# URLs...


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("nats://h", "nats", "h", 4222),
        ("h", "nats", "h", 4222),
        ("h:1234", "nats", "h", 1234),
        ("tls://h", "tls", "h", 4222),
        ("ws://h", "ws", "h", 80),
        ("wss://h", "wss", "h", 443),
        ("NATS://Host.Example", "nats", "host.example", 4222),
        ("nats://[::1]", "nats", "::1", 4222),
        ("nats://[::1]:7", "nats", "::1", 7),
        ("[fe80::1%eth0]:7", "nats", "fe80::1%eth0", 7),
        ("nats://h:1/", "nats", "h", 1),
    ],
)
def test_a_url_has_a_scheme_a_host_and_a_port_each_with_its_default(
    url: str, scheme: str, host: str, port: int
) -> None:
    server = parse_url(url)
    assert (server.scheme, server.host, server.port) == (scheme, host, port)


def test_the_text_of_a_server_is_a_url_again() -> None:
    for url in ("nats://h:1", "tls://[::1]:2", "ws://h:80"):
        assert str(parse_url(url)) == url


def test_a_websocket_url_has_a_path() -> None:
    assert parse_url("ws://h").path == "/"
    assert parse_url("wss://h/nats/in?zone=1").path == "/nats/in?zone=1"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, TEXTS)
def test_user_and_password_survive_percent_encoding(user: str, password: str) -> None:
    server = parse_url(f"nats://{quote(user, safe='')}:{quote(password, safe='')}@h:1")
    assert (server.user, server.password, server.token) == (user, password, None)
    assert (server.host, server.port) == ("h", 1)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_token_survives_percent_encoding(token: str) -> None:
    server = parse_url(f"nats://{quote(token, safe='')}@h")
    assert (server.user, server.password, server.token) == (None, None, token)


def test_odd_characters_in_a_password_need_no_encoding_where_they_are_unambiguous() -> None:
    server = parse_url("nats://ann:p@ss:w%ord+@h")
    assert (server.user, server.password, server.host) == ("ann", "p@ss:w%ord+", "h")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://h", "the scheme is one of nats, tls, ws, wss"),
        ("nats://", "looks like nats://host:4222"),
        ("", "looks like"),
        ("nats://:4222", "looks like"),
        ("nats://h:99999", "not a port from 1 to 65535"),
        ("nats://h:0", "not a port"),
        ("nats://h:-1", "not a port"),
        ("nats://h/path", "looks like"),
        ("nats://h?tls=1", "looks like"),
        ("nats://h#x", "looks like"),
        ("nats://two words", "looks like"),
        ("nats://[::1", "looks like"),
        ("ws://h/ä", "looks like"),
    ],
)
def test_what_is_no_server_url_is_refused(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "nats://ann:hunter2@h:99999",
        "nats://ann:hun/ter2@h",
        "nats://ann:hun?ter2@h",
        "nats://ann:hun#ter2@h",
        "nats://ann:/hunter2@h",
        "http://ann:hunter2@h",
        "nats://ann:hunter2@",
        "nats://ann:hunter2",
        "nats://ann:hunter2@[::1",
        "nats://ann:hunter2%FF@h",
        "ann:hunter2@h:x",
        "nats://hunter2@h:x",
    ],
)
def test_what_is_said_about_a_bad_url_does_not_show_its_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(url)

    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert "hunter2" not in shown
    assert "ter2" not in shown


@given(st.text())
def test_any_text_is_a_server_or_a_usage_error(text: str) -> None:
    try:
        server = parse_url(text)
    except UsageError:
        return

    assert server.host
    assert 1 <= server.port <= 65535


def test_servers_are_given_as_a_url_as_several_or_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_urls("nats://a, nats://b") == ["nats://a", "nats://b"]
    assert server_urls(("nats://a", "b")) == ["nats://a", "b"]
    monkeypatch.delenv("NATS_URL", raising=False)
    assert server_urls(None) == ["nats://127.0.0.1:4222"]
    monkeypatch.setenv("NATS_URL", "nats://c,nats://d")
    assert server_urls(None) == ["nats://c", "nats://d"]


def test_servers_that_are_none_are_refused_without_being_shown() -> None:
    wrong: list[Any] = [
        [],
        "",
        "nats://a,,b",
        ["nats://ann:hunter2@a", ""],
        ["nats://ann:hunter2@a", 5],
        5,
        {"nats://a"},
    ]
    for servers in wrong:
        with pytest.raises(UsageError) as caught:
            server_urls(servers)

        assert "hunter2" not in str(caught.value)


# The pool: a round goes through all servers...

ORDERED = Options(dont_randomize=True, reconnect_time_wait=8.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_pool(*hosts: str, options: Options = ORDERED) -> tuple[ServerPool, Clock]:
    clock = Clock()
    return ServerPool(list(hosts), options, clock=clock), clock


def turn(pool: ServerPool) -> tuple[Server, float]:
    found = pool.next()
    assert found is not None
    return found


def a_round(pool: ServerPool) -> tuple[list[str], float]:
    """Let each server fail once; return their hosts and the wait that came before."""
    others = len(pool) - 1
    server, before = turn(pool)
    hosts = [server.host]
    pool.failed(server)
    for _ in range(others):
        server, wait = turn(pool)
        assert wait == 0
        hosts.append(server.host)
        pool.failed(server)

    return hosts, before


def test_the_first_round_begins_at_once_and_each_further_one_waits_longer_up_to_the_limit() -> None:
    pool, _ = a_pool("a", "b", "c")
    hosts, wait = a_round(pool)
    assert (hosts, wait) == (["a", "b", "c"], 0)
    most = 0.05
    for _ in range(12):
        hosts, wait = a_round(pool)
        assert hosts == ["a", "b", "c"]
        assert most / 2 <= wait <= most
        most = min(most * 2, 8.0)


def test_the_wait_is_never_nothing_between_two_rounds() -> None:
    pool, _ = a_pool("a", options=Options(reconnect_time_wait=0))
    a_round(pool)
    for _ in range(5):
        assert a_round(pool)[1] > 0


def test_servers_are_shuffled_unless_asked_otherwise() -> None:
    hosts = [f"h{number}" for number in range(40)]
    assert a_round(a_pool(*hosts)[0])[0] == hosts
    assert a_round(a_pool(*hosts, options=Options())[0])[0] != hosts


def test_a_server_given_twice_is_tried_once() -> None:
    pool, _ = a_pool("nats://first@a", "b", "nats://second@a:4222")
    assert str(pool) == "nats://a:4222, nats://b:4222"
    assert turn(pool)[0].token == "first"


def test_after_a_link_the_other_servers_come_first_and_at_once() -> None:
    pool, clock = a_pool("a", "b", "c")
    pool.connected(turn(pool)[0])
    clock.now = 60.0
    assert a_round(pool) == (["b", "c", "a"], 0)


def test_a_link_that_did_not_last_does_not_start_the_waiting_anew() -> None:
    pool, clock = a_pool("a")
    waits = []
    for _ in range(8):
        server, wait = turn(pool)
        waits.append(wait)
        pool.connected(server)
        clock.now += 1.0  # taken and thrown out again

    assert waits[0] == 0
    assert waits[-1] >= 0.05 * 2**6 / 2
    clock.now += 60.0
    assert turn(pool)[1] == 0


def test_a_server_is_given_up_after_so_many_failures_in_a_row() -> None:
    pool, clock = a_pool("a", "b", options=Options(dont_randomize=True, max_reconnect_attempts=3))
    for _ in range(2):
        a_round(pool)

    server, _ = turn(pool)
    pool.connected(server)
    clock.now = 60.0
    for hosts in (["b", "a"], ["a"], ["a"]):
        assert a_round(pool)[0] == hosts

    assert pool.next() is None
    assert len(pool) == 0


def test_the_same_refusal_twice_in_a_row_ends_a_server() -> None:
    pool, _ = a_pool("a", "b")
    server, _ = turn(pool)
    pool.failed(server, "Authorization Violation")
    pool.failed(turn(pool)[0])
    again, _ = turn(pool)
    assert again is server
    pool.failed(again, "Authorization Violation")
    assert str(pool) == "nats://b:4222"


def test_another_refusal_or_another_failure_in_between_does_not_end_it() -> None:
    pool, _ = a_pool("a")
    for refusal in (
        "Authorization Violation",
        "User Authentication Expired",
        None,
        "User Authentication Expired",
    ):
        pool.failed(turn(pool)[0], refusal)

    assert len(pool) == 1


def test_who_was_refused_is_asked_again_only_after_the_longest_wait() -> None:
    pool, _ = a_pool("a")
    pool.failed(turn(pool)[0], "Authorization Violation")
    assert turn(pool)[1] >= 4.0


# ...and is brought in line with what the cluster says


def discover(pool: ServerPool, current: Server, *addresses: object) -> list[str]:
    pool.discover(list(addresses), current)
    return str(pool).replace("nats://", "").split(", ")


def test_discovered_servers_come_and_go_but_given_ones_and_the_current_one_stay() -> None:
    pool, _ = a_pool("a:1", "b:2")
    current = turn(pool)[0]
    pool.connected(current)
    assert discover(pool, current, "a:1", "c:3", "d:4") == ["b:2", "c:3", "d:4", "a:1"]
    assert discover(pool, current, "d:4") == ["b:2", "d:4", "a:1"]
    third = next(server for server, _ in (turn(pool), turn(pool)) if server.discovered)
    pool.connected(third)
    assert discover(pool, third, "e:5") == ["b:2", "a:1", "e:5", "d:4"]


def test_a_list_without_any_server_changes_nothing() -> None:
    pool, _ = a_pool("a:1")
    current = turn(pool)[0]
    assert discover(pool, current, "b:2") == ["a:1", "b:2"]
    assert discover(pool, current) == ["a:1", "b:2"]


@pytest.mark.parametrize(
    "nonsense", [None, 5, "h:1", {}, [None], [5], [""], ["h:x"], [":"], [[]], ["a@b:c/d"]]
)
def test_nonsense_in_connect_urls_is_passed_over(nonsense: object) -> None:
    pool, _ = a_pool("a:1")
    current = turn(pool)[0]
    pool.discover(nonsense, current)
    assert str(pool) == "nats://a:1"


def test_a_discovered_server_has_the_scheme_path_and_credentials_of_the_one_that_told() -> None:
    pool, _ = a_pool("wss://ann:pw@a:1/in")
    current = turn(pool)[0]
    pool.discover(["b:2", "[::1]:3"], current)
    for server, _ in (turn(pool), turn(pool)):
        if server is not current:
            assert (server.scheme, server.user, server.password, server.path) == ("wss", "ann", "pw", "/in")


def test_a_discovered_address_is_verified_by_the_name_of_the_one_that_told_or_the_last_one_given() -> None:
    pool, _ = a_pool("tls://one.example:1", "tls://two.example:2", "tls://10.0.0.1:3")
    one, two, address = (turn(pool)[0] for _ in range(3))
    for current, name in ((one, "one.example"), (two, "two.example"), (address, "two.example")):
        pool.discover(["10.0.0.2:9", "named.example:9"], current)
        found = {server.host: server.tls_name for server in servers_of(pool) if server.discovered}
        assert found == {"10.0.0.2": name, "named.example": None}
        pool.discover(["one.example:1"], current)

    pool.discover(["10.0.0.2:9"], two)
    told = next(server for server in servers_of(pool) if server.discovered)
    pool.discover(["10.0.0.2:9", "10.0.0.3:9"], told)
    assert {server.tls_name for server in servers_of(pool) if server.discovered} == {"two.example"}


def servers_of(pool: ServerPool) -> list[Server]:
    return list(pool._servers)


HOSTS = [f"h{number}:1" for number in range(6)]


class PoolRules(RuleBasedStateMachine):
    """Whatever happens: in each round each server has one turn, and who was given up stays away until discovered."""

    @initialize(
        hosts=st.lists(st.sampled_from(HOSTS), min_size=1, unique=True), attempts=st.sampled_from([-1, 1, 3])
    )
    def begin(self, hosts: list[str], attempts: int) -> None:
        self.clock = Clock()
        self.pool = ServerPool(hosts, Options(max_reconnect_attempts=attempts), clock=self.clock)
        self.given = set(servers_of(self.pool))
        self.had_turn: set[Server] = set()
        self.given_up: set[Server] = set()
        self.current: Server | None = None
        self.after_link = False

    @precondition(lambda self: self.current is None)
    @rule(
        outcome=st.sampled_from(["fails", "refuses", "connects"]),
        refusal=st.sampled_from(["Authorization Violation", "User Authentication Expired"]),
    )
    def take_turn(self, outcome: str, refusal: str) -> None:
        found = self.pool.next()
        if found is None:
            assert not len(self.pool)
            return

        server, wait = found
        assert server in servers_of(self.pool)
        assert server not in self.given_up
        if wait > 0 or self.after_link:
            assert self.after_link or set(servers_of(self.pool)) <= self.had_turn
            self.had_turn.clear()

        assert server not in self.had_turn
        self.after_link = False
        self.had_turn.add(server)
        if outcome == "connects":
            self.pool.connected(server)
            self.current = server
        else:
            self.pool.failed(server, refusal if outcome == "refuses" else None)
            if server not in servers_of(self.pool):
                self.given_up.add(server)

    @precondition(lambda self: self.current is not None)
    @rule(addresses=st.lists(st.sampled_from(HOSTS)))
    def learn(self, addresses: list[str]) -> None:
        assert self.current is not None
        before = {server for server in servers_of(self.pool) if not server.discovered}
        self.pool.discover(addresses, self.current)
        now = servers_of(self.pool)
        assert before <= set(now)
        assert self.current in now
        assert len({server.address for server in now}) == len(now)
        assert {parse_url(address).address for address in addresses} <= {server.address for server in now}

    @precondition(lambda self: self.current is not None)
    @rule(after=st.sampled_from([0.0, 100.0]))
    def lose_link(self, after: float) -> None:
        self.clock.now += after
        self.current = None
        self.after_link = True

    @invariant()
    def waiting_is_bounded(self) -> None:
        if hasattr(self, "pool"):
            assert len(self.pool) == len(servers_of(self.pool)) <= len(HOSTS)


TestPoolRules = PoolRules.TestCase


# The first connect...


async def test_when_nothing_is_reachable_each_server_is_tried_once_and_listed_with_its_reason() -> None:
    urls = [
        f"nats://127.0.0.1:{free_port()}",
        f"nats://[::1]:{free_port()}",
        "nats://no-such-host.invalid:4222",
    ]
    with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed) as caught:
        async with connect(urls, **quick(dont_randomize=True)):
            pass

    reasons = caught.value.reasons
    assert [server for server, _ in reasons] == urls
    assert reasons[0][1] == "Connection refused"
    assert reasons[2][1].startswith("the name cannot be resolved: ")
    assert all(f"{server}: {reason}" in str(caught.value) for server, reason in reasons)
    assert pickle.loads(pickle.dumps(caught.value)).reasons == reasons


async def test_the_first_connect_ends_also_without_a_wait_between_rounds() -> None:
    with anyio.fail_after(LIMIT), pytest.raises(ConnectFailed):
        async with connect(f"nats://127.0.0.1:{free_port()}", reconnect_time_wait=0, connect_timeout=10):
            pass


async def test_one_server_that_can_be_reached_is_enough(url: str) -> None:
    dead = [f"nats://127.0.0.1:{free_port()}" for _ in range(3)]
    async with connect([*dead, url], **quick(dont_randomize=True)) as nc:
        await nc.flush()


async def test_a_password_in_a_url_is_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    port = free_port()
    with pytest.raises(ConnectFailed) as caught:
        async with connect(f"nats://ann:hunter2@127.0.0.1:{port}", **quick()):
            pass

    chain: BaseException | None = caught.value
    while chain is not None:
        assert "hunter2" not in f"{chain!s}{chain!r}"
        chain = chain.__cause__ or chain.__context__

    assert "hunter2" not in caplog.text
    assert f"nats://127.0.0.1:{port}" in str(caught.value)


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python was built without IPv6")
async def test_ipv6_addresses_work() -> None:
    try:
        async with run_server(host="::1", jetstream=False) as server, connect(server.url, **quick()) as nc:
            assert server.url.startswith("nats://[::1]:")
            await nc.flush()
    except OSError:
        pytest.skip("this machine has no IPv6")


async def test_small_frames_are_sent_at_once(url: str) -> None:
    server = parse_url(url)
    async with await open_tcp(server) as stream:
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# When a link breaks...


async def greeted(stream: SocketStream, info: bytes = INFO) -> None:
    await stream.send(info)
    await receive_until(stream, b"PING\r\n")
    await stream.send(b"PONG\r\n")


async def test_the_other_server_takes_over_at_once() -> None:
    async with (
        run_server(jetstream=False) as a,
        run_server(jetstream=False) as b,
        connect([a.url, b.url], **quick(dont_randomize=True)) as nc,
    ):
        assert nc.server_info["port"] == a.port
        a.kill()
        await reconnected(nc)
        assert nc.server_info["port"] == b.port


async def test_a_server_named_in_the_first_info_takes_over() -> None:
    """Servers before 2.11 say no more of their cluster after the greeting, as long as nothing changes."""
    async with run_server(jetstream=False) as server:

        async def script(stream: SocketStream) -> None:
            await greeted(stream, INFO.replace(b"{", b'{"connect_urls":["127.0.0.1:%d"],' % server.port))
            await stream.aclose()

        async with scripted_peer(script) as peer, connect(peer.url, **quick()) as nc:
            await until(lambda: nc.connected and nc.server_info.get("port") == server.port)


async def test_without_reconnect_the_block_is_told_that_the_link_broke() -> None:
    async with run_server(jetstream=False) as server:
        assert "lost" in await ending(server.url, server.kill, allow_reconnect=False)


async def test_when_every_server_is_given_up_the_block_is_told_why() -> None:
    async with run_server(jetstream=False) as server:
        text = await ending(server.url, server.kill, max_reconnect_attempts=2)
        assert f"{server.url}: Connection refused" in text


async def test_a_server_that_takes_us_and_throws_us_out_is_not_stormed() -> None:
    async def script(stream: SocketStream) -> None:
        await greeted(stream)
        await stream.send(b"-ERR 'maximum account active connections exceeded'\r\n")
        await stream.aclose()

    async with scripted_peer(script) as peer:
        started = anyio.current_time()
        async with connect(peer.url, connect_timeout=10, reconnect_time_wait=30) as nc:
            await until(lambda: nc.reconnects >= 4)

        # The waits before them are at least 0.025, 0.05, 0.1 and 0.2 seconds.
        assert anyio.current_time() - started > 0.3


async def test_nonsense_in_info_does_not_end_the_connection() -> None:
    async def script(stream: SocketStream) -> None:
        await greeted(stream)
        await stream.send(b'INFO {"connect_urls":["","h:x",5],"nonce":7,"max_payload":9}\r\n')
        while True:
            received = await receive_until(stream, b"PING\r\n")
            await stream.send(b"PONG\r\n" * received.count(b"PING\r\n"))

    async with scripted_peer(script) as peer, connect(peer.url, **quick()) as nc:
        with anyio.fail_after(LIMIT):
            await nc.flush()

        assert nc.max_payload == 9
        assert not nc.reconnects


async def ending(url: str, kill: Any, **options: Unpack[ConnectOptions]) -> str:
    """Return what is raised out of the block of a connection whose server is killed."""

    async def change() -> None:
        kill()

    with pytest.raises(NatsJobsError) as caught:
        await stay(url, change, **options)

    return str(caught.value)
