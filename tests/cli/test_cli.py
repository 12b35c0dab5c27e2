"""The command line, as a shell sees it: output, exit codes, signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from nats_jobs._version import __version__
from nats_jobs.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LIMIT = 30.0  # never waited for: only what a hanging test is given

COMMAND = (sys.executable, "-m", "nats_jobs")


@contextmanager
def started(arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def port_in(line: str) -> int:
    found = re.search(r"nats://127\.0\.0\.1:(\d+)", line)
    assert found is not None, line
    return int(found[1])


def says_hello(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
        return connection.recv(5) == b"INFO "


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT).close()
    except ConnectionRefusedError:
        return True

    return False


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Name and number, and nothing else."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"nats-jobs {__version__}\n"


def test_the_package_can_be_run_as_a_module() -> None:
    """As with `python -m pip`: the interpreter decides which installation it is."""
    done = subprocess.run(
        [sys.executable, "-m", "nats_jobs", "--version"],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stdout) == (0, f"nats-jobs {__version__}\n")


@pytest.mark.parametrize(
    "arguments", [[], ["frobnicate"], ["server", "--port", "70000"], ["server", "--port", "x"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As every program does, with the usage on stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "usage: nats-jobs" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_the_server_serves_until_it_is_signalled(sig: signal.Signals, backend: str) -> None:
    """One line when it is ready, quiet otherwise, exit code 0, and the server is gone."""
    with started(["server", "--port", "0", "--backend", backend]) as process:
        line = read_line(process)
        port = port_in(line)
        assert says_hello(port)
        process.send_signal(sig)
        out, err = process.communicate(timeout=LIMIT)

    assert process.returncode == 0
    assert (out, err) == ("", "")
    assert refuses(port)
    assert not os.path.exists(line.split("store ")[1].split(" ")[0])


def test_a_given_store_is_kept_and_named(tmp_path: Path) -> None:
    """The line says where the data is."""
    with started(["server", "--port", "0", "--store", str(tmp_path / "data")]) as process:
        line = read_line(process)
        process.terminate()
        assert process.wait(timeout=LIMIT) == 0

    assert line.endswith(f"store {tmp_path / 'data'}\n")
    assert (tmp_path / "data" / "jetstream").is_dir()


def test_the_log_is_shown_when_asked_for() -> None:
    """All of it, also what the server says while it stops."""
    with started(["server", "--port", "0", "--verbose"]) as process:
        read_line(process)
        process.terminate()
        _, err = process.communicate(timeout=LIMIT)

    assert process.returncode == 0
    assert "Server is ready" in err
    assert "Server Exiting" in err


def test_a_config_file_is_used_where_it_is(tmp_path: Path) -> None:
    """So a file it includes is found beside it."""
    (tmp_path / "more.conf").write_text("max_payload: 4096\n")
    config = tmp_path / "nats.conf"
    config.write_text("include more.conf\n")
    with started(["server", "--port", "0", "--config", str(config)]) as process:
        with socket.create_connection(
            ("127.0.0.1", port_in(read_line(process))), timeout=LIMIT
        ) as connection:
            assert b'"max_payload":4096' in connection.recv(65536)

        process.terminate()
        assert process.wait(timeout=LIMIT) == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_port_in_use_ends_with_1_and_one_line(backend: str) -> None:
    """The line names the reason; no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with started(["server", "--port", port, "--backend", backend]) as process:
            out, err = process.communicate(timeout=LIMIT)

    assert process.returncode == 1
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("nats-jobs: ")
    assert "address already in use" in err


def test_a_server_that_dies_by_itself_ends_with_1_and_one_line(tmp_path: Path) -> None:
    """The command does not go on without what it is for."""
    pid_file = tmp_path / "pid"
    config = tmp_path / "nats.conf"
    config.write_text(f'pid_file: "{pid_file}"\n')
    with started(["server", "--port", "0", "--config", str(config)]) as process:
        read_line(process)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        _, err = process.communicate(timeout=LIMIT)

    assert process.returncode == 1
    assert err.count("\n") == 1
    assert "ended by itself" in err


def test_an_error_in_this_process_is_one_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`main` returns the exit code; it raises no error of ours."""
    assert main(["server", "--port", "0", "--config", str(tmp_path / "missing.conf")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
