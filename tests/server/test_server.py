"""The embedded server: usable when entered, gone when left, whatever happens in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from nats_jobs.errors import ServerFailed, ServerNotFound, UsageError
from nats_jobs.server import Server, find_server, run_server

pytestmark = pytest.mark.anyio

LIMIT = 30.0  # never waited for: only what a hanging test is given

NEVER_READY = """#!{python}
import os, signal, time
{prelude}
with open({file!r} + ".new", "w") as out:
    out.write(str(os.getpid()))
os.rename({file!r} + ".new", {file!r})
time.sleep(600)
"""


class Gone(Exception):
    """What the bodies of these tests raise."""


async def receive_until(stream: anyio.abc.ByteStream, end: bytes) -> bytes:
    received = b""
    while end not in received:
        received += await stream.receive()

    return received


async def read_hello(server: Server) -> dict[str, Any]:
    with anyio.fail_after(LIMIT):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            line = await receive_until(stream, b"\r\n")

    verb, _, text = line.partition(b" ")
    assert verb == b"INFO"
    hello: dict[str, Any] = json.loads(text)
    return hello


async def ask(server: Server, subject: str, payload: object) -> dict[str, Any]:
    """One request and its reply, by hand: this room knows no client."""
    body = json.dumps(payload).encode()
    with anyio.fail_after(LIMIT):
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await receive_until(stream, b"\r\n")
            await stream.send(b'CONNECT {"verbose":false}\r\nSUB answers 1\r\n')
            await stream.send(b"PUB %b answers %d\r\n%b\r\n" % (subject.encode(), len(body), body))
            received = await receive_until(stream, b"}\r\n")

    answer: dict[str, Any] = json.loads(received[received.index(b"{") : received.rindex(b"}") + 1])
    assert "error" not in answer
    return answer


def exists(pid: int) -> bool:
    """Also true for a zombie, so a child that was not waited for shows."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False

    return True


def is_alive(pid: int) -> bool:
    """False for a zombie: who inherits an orphan reaps it when it likes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(stat: Path) -> int | None:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None  # ended while we looked


def our_children() -> set[int]:
    """Zombies too."""
    stats = Path("/proc").glob("[0-9]*/stat")
    return {int(stat.parent.name) for stat in stats if parent_of(stat) == os.getpid()}


def never_ready(directory: Path, *, prelude: str = "") -> tuple[Path, Path]:
    """A program that starts and never gets ready, and the file in which it tells its pid."""
    program, told = directory / "never-ready", directory / "pid"
    program.write_text(NEVER_READY.format(python=sys.executable, prelude=prelude, file=str(told)))
    program.chmod(0o755)
    return program, told


async def wait_for_file(file: Path) -> str:
    with anyio.fail_after(LIMIT):
        while not file.exists():  # noqa: ASYNC240 - another process sets no events
            await anyio.sleep(0.01)

    return file.read_text()  # noqa: ASYNC240


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made, so that one left behind shows."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


class TestStarting:
    async def test_the_server_answers_at_its_url_as_soon_as_it_is_entered(self) -> None:
        """Ready means that the first connection finds JetStream; nothing has to be retried."""
        async with run_server() as server:
            hello = await read_hello(server)

            assert server.url == f"nats://127.0.0.1:{server.port}"
            assert hello["port"] == server.port
            assert hello["jetstream"] is True
            assert server.running
            assert "Server is ready" in server.logs()
            assert server.logs(1).count("\n") <= 1

    async def test_the_pid_is_the_servers_own(self) -> None:
        """Signals go to nats-server, not to something that started it."""
        async with run_server() as server:
            assert "nats-server" in Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")[0]  # noqa: ASYNC240
            assert f"[{server.pid}]" in server.logs()

    async def test_two_servers_do_not_get_in_each_others_way(self) -> None:
        """Each has a port and a store of its own."""
        async with run_server() as one, run_server() as other:
            assert one.port != other.port
            assert one.store_dir != other.store_dir
            await read_hello(one)
            await read_hello(other)

    async def test_jetstream_can_be_left_off(self) -> None:
        """A server without JetStream is ready without it."""
        async with run_server(jetstream=False) as server:
            assert "jetstream" not in await read_hello(server)

    async def test_a_server_on_every_address_is_reached_at_loopback(self) -> None:
        """An address to listen on need not be one to connect to."""
        async with run_server(host="0.0.0.0") as server:
            assert server.url == f"nats://127.0.0.1:{server.port}"
            assert server.host == "0.0.0.0"
            await read_hello(server)

    async def test_config_text_is_used_and_our_port_wins_over_it(self) -> None:
        """More configuration never moves the server away from where we look for it."""
        config = 'listen: "127.0.0.1:1"\nserver_name: hermes\njetstream { max_memory_store: 10M }\nmax_payload: 4096'
        async with run_server(config=config) as server:
            hello = await read_hello(server)

        assert hello["server_name"] == "hermes"
        assert hello["max_payload"] == 4096
        assert hello["jetstream"] is True

    async def test_another_configuration_can_be_read_while_it_runs(self) -> None:
        async with run_server(config="ping_interval: 1m", jetstream=False) as server:
            server.reload("ping_interval: 2m")
            with anyio.fail_after(20):
                while "Reloaded: ping_interval" not in server.logs():
                    await anyio.sleep(0.02)

    async def test_a_server_without_a_configuration_reads_none(self) -> None:
        async with run_server(jetstream=False) as server:
            with pytest.raises(UsageError, match="without config"):
                server.reload("ping_interval: 2m")

    async def test_more_arguments_win_over_ours(self) -> None:
        """What the caller says last counts."""
        async with run_server(args=("--server_name", "hermes")) as server:
            assert (await read_hello(server))["server_name"] == "hermes"

    async def test_a_missing_binary_is_named_with_the_way_to_get_one(self, tmp_path: Path) -> None:
        """The error tells where was looked, and the extra that brings the program."""
        with pytest.raises(ServerNotFound) as caught:
            async with run_server(binary=tmp_path / "nats-server"):
                pytest.fail("entered")

        assert str(tmp_path / "nats-server") in str(caught.value)
        assert "nats-jobs[server]" in str(caught.value)

    async def test_a_bad_config_fails_at_once_with_the_servers_words(self, temporary: Path) -> None:
        """No waiting for a server that has ended, and its reason is in the error."""
        with anyio.fail_after(LIMIT), pytest.raises(ServerFailed, match="exit code 1") as caught:
            async with run_server(config="accounts {", start_timeout=2 * LIMIT):
                pytest.fail("entered")

        assert "Parse error" in caught.value.log
        assert list(temporary.iterdir()) == []  # noqa: ASYNC240

    async def test_a_port_in_use_fails_with_the_servers_words(self) -> None:
        """Somebody else's server is never taken for ours."""
        async with run_server() as first:
            with pytest.raises(ServerFailed) as caught:
                async with run_server(port=first.port):
                    pytest.fail("entered")

        assert "address already in use" in caught.value.log

    async def test_a_server_that_never_gets_ready_fails_in_time(
        self, tmp_path: Path, temporary: Path
    ) -> None:
        """The start is bounded, and what was started is gone."""
        program, told = never_ready(tmp_path)
        with anyio.fail_after(LIMIT), pytest.raises(ServerFailed, match="not ready within 1 s"):
            async with run_server(binary=program, start_timeout=1):
                pytest.fail("entered")

        assert not told.exists() or not exists(int(told.read_text()))
        assert list(temporary.iterdir()) == []  # noqa: ASYNC240

    @pytest.mark.parametrize(
        "wrong", [{"port": -1}, {"port": 65536}, {"start_timeout": 0}, {"stop_timeout": -1}]
    )
    async def test_nonsense_is_refused(self, wrong: dict[str, Any]) -> None:
        """Nothing is started for arguments out of range."""
        with pytest.raises(UsageError):
            async with run_server(**wrong):
                pytest.fail("entered")

    async def test_a_store_that_cannot_be_made_is_refused(self, tmp_path: Path) -> None:
        """The error names the directory."""
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(UsageError, match="store_dir"):
            async with run_server(store_dir=file / "store"):
                pytest.fail("entered")


class TestLeaving:
    async def test_nothing_is_left_after_leaving(self, temporary: Path) -> None:
        """No process, no file; the last of the log can still be read."""
        async with run_server() as server:
            assert len(list(temporary.iterdir())) == 1  # noqa: ASYNC240

        assert not exists(server.pid)
        assert not server.running
        assert list(temporary.iterdir()) == []  # noqa: ASYNC240
        assert "Server Exiting" in server.logs(3)

    async def test_an_error_in_the_body_comes_out_and_the_server_is_gone(self, temporary: Path) -> None:
        """The body's exception is passed on as it is."""
        pid = 0
        with pytest.raises(Gone):
            async with run_server() as server:
                pid = server.pid
                raise Gone

        assert pid
        assert not exists(pid)
        assert list(temporary.iterdir()) == []  # noqa: ASYNC240

    async def test_a_cancelled_body_takes_the_server_with_it(self, temporary: Path) -> None:
        """The stopping is shielded, so it also happens inside a cancelled scope."""
        pid = 0
        with anyio.CancelScope() as scope:
            async with run_server() as server:
                pid = server.pid
                scope.cancel()
                await anyio.sleep_forever()

        assert pid
        assert not exists(pid)
        assert list(temporary.iterdir()) == []  # noqa: ASYNC240

    async def test_a_start_cancelled_half_way_leaves_no_process(
        self, tmp_path: Path, temporary: Path
    ) -> None:
        """The process exists and is not ready yet: this is where cancelling hurts."""
        program, told = never_ready(tmp_path)
        pid = 0
        async with anyio.create_task_group() as tasks:

            async def start() -> None:
                async with run_server(binary=program, start_timeout=2 * LIMIT):
                    pytest.fail("entered")

            tasks.start_soon(start)
            pid = int(await wait_for_file(told))
            tasks.cancel_scope.cancel()

        assert pid
        assert not exists(pid)
        assert list(temporary.iterdir()) == []  # noqa: ASYNC240

    @pytest.mark.parametrize("milliseconds", [0, 1, 5, 10, 20, 30, 40])
    async def test_a_start_cancelled_at_any_moment_leaves_nothing(
        self, milliseconds: int, temporary: Path
    ) -> None:
        """Whether or not it got ready in that time."""
        before = our_children()
        with anyio.move_on_after(milliseconds / 1000):
            async with run_server():
                await anyio.sleep_forever()

        assert our_children() <= before
        assert list(temporary.iterdir()) == []  # noqa: ASYNC240

    async def test_a_server_that_does_not_listen_is_killed(self, tmp_path: Path) -> None:
        """Leaving is bounded, even when the request to end is ignored."""
        program, told = never_ready(tmp_path, prelude="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
        pid = 0
        async with anyio.create_task_group() as tasks:

            async def start() -> None:
                async with run_server(binary=program, start_timeout=2 * LIMIT, stop_timeout=0.1):
                    pytest.fail("entered")

            tasks.start_soon(start)
            pid = int(await wait_for_file(told))
            tasks.cancel_scope.cancel()

        assert pid
        assert not exists(pid)

    async def test_a_paused_server_ends_in_order(self) -> None:
        """A test that left its server paused does not wait for the kill."""
        with anyio.fail_after(LIMIT):
            async with run_server(stop_timeout=2 * LIMIT) as server:
                server.signal(signal.SIGSTOP)

        assert "Server Exiting" in server.logs()

    async def test_leaving_after_the_server_died_is_no_error(self) -> None:
        """The body decides what a dead server means."""
        async with run_server() as server:
            server.kill()
            assert await server.wait_exited() == -signal.SIGKILL
            assert not server.running
            server.terminate()

    async def test_any_number_of_tasks_may_wait_for_the_end(self) -> None:
        """All of them are told, and a cancelled one disturbs nobody."""
        codes: list[int] = []
        async with run_server() as server, anyio.create_task_group() as tasks:

            async def wait() -> None:
                codes.append(await server.wait_exited())

            for _ in range(3):
                tasks.start_soon(wait)

            with anyio.move_on_after(0.01):
                await server.wait_exited()
                pytest.fail("ended")

            server.terminate()

        assert len(codes) == 3
        assert len(set(codes)) == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
    async def test_a_killed_caller_takes_the_server_with_it(self, tmp_path: Path) -> None:
        """Nobody is left to stop it then; the kernel does."""
        code = (
            "import anyio\n"
            "from nats_jobs.server import run_server\n"
            "async def main():\n"
            "    async with run_server() as server:\n"
            "        print(server.pid, flush=True)\n"
            "        await anyio.sleep_forever()\n"
            "anyio.run(main)\n"
        )
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        start = partial(subprocess.Popen[bytes], stdout=subprocess.PIPE, env=environment)
        with start([sys.executable, "-c", code]) as caller:
            assert caller.stdout is not None
            pid = int(caller.stdout.readline())
            assert is_alive(pid)
            caller.kill()

        try:
            with anyio.fail_after(LIMIT):
                while is_alive(pid):
                    await anyio.sleep(0.01)
        finally:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


class TestRestarting:
    async def test_a_killed_server_comes_back_on_the_same_port_with_its_data(self) -> None:
        """Restart is what the tests of crash recovery stand on."""
        async with run_server() as server:
            await ask(server, "$JS.API.STREAM.CREATE.ORDERS", {"name": "ORDERS", "subjects": ["orders"]})
            await ask(server, "orders", {"order": 1})
            port, pid = server.port, server.pid
            server.kill()
            await server.wait_exited()
            await server.restart()

            assert server.port == port
            assert server.pid != pid
            assert (await ask(server, "$JS.API.STREAM.INFO.ORDERS", None))["state"]["messages"] == 1
            assert server.logs().count("Server is ready") == 2

        assert not exists(pid)
        assert not exists(server.pid)

    async def test_a_running_server_is_stopped_before_it_is_started_again(self) -> None:
        """Never two processes on one store."""
        async with run_server() as server:
            pid = server.pid
            await server.restart()
            assert not exists(pid)
            await read_hello(server)

    async def test_restarts_asked_for_together_take_turns(self) -> None:
        """No process is lost between two tasks that restart."""
        before = our_children()
        async with run_server() as server:
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(server.restart)

            await read_hello(server)
            assert our_children() - before == {server.pid}

    async def test_a_restart_that_fails_tells_why_and_can_be_repeated(self) -> None:
        """Its port may have been taken meanwhile."""
        async with run_server() as server:
            server.kill()
            await server.wait_exited()
            with socket.create_server(("127.0.0.1", server.port)), pytest.raises(ServerFailed) as caught:
                await server.restart()

            assert "address already in use" in caught.value.log
            await server.restart()
            await read_hello(server)

    async def test_a_left_server_cannot_be_restarted(self) -> None:
        """There would be nobody to stop it."""
        async with run_server() as server:
            pass

        with pytest.raises(UsageError):
            await server.restart()

    async def test_a_given_store_is_kept_and_serves_the_next_server(self, tmp_path: Path) -> None:
        """Same store, same port, another `run_server`: the data is there."""
        store = tmp_path / "deep" / "store"
        async with run_server(store_dir=store) as first:
            await ask(first, "$JS.API.STREAM.CREATE.ORDERS", {"name": "ORDERS", "subjects": ["orders"]})
            await ask(first, "orders", {"order": 1})
            first.kill()

        assert any(store.rglob("*.blk"))
        async with run_server(port=first.port, store_dir=first.store_dir) as second:
            assert second.url == first.url
            assert (await ask(second, "$JS.API.STREAM.INFO.ORDERS", None))["state"]["messages"] == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
class TestTls:
    @pytest.mark.parametrize("first", ["false", "true"])
    async def test_a_server_with_tls_gets_ready(self, first: str, tmp_path: Path) -> None:
        """With `handshake_first` it says nothing until the client does; it is ready all the same."""
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        make = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ]
        make += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
        subprocess.run(make, check=True, capture_output=True)  # noqa: ASYNC221 - milliseconds
        config = f'tls {{ cert_file: "{certificate}", key_file: "{key}", handshake_first: {first} }}'
        async with run_server(config=config) as server:
            assert server.running


def test_the_wheels_program_is_found_before_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version that was installed with us is the one we were tested with."""
    monkeypatch.setenv("PATH", "")

    assert find_server().name == "nats-server"
