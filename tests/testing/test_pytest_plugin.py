"""The fixtures of the pytest plugin, in runs of pytest of their own, with each plugin for async tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

OTHERS = {"asyncio", "trio", "anyio"}
CONFIGURATION = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
trio_mode = true
"""
TESTS = """
import pytest

from nats_jobs import Job, job, job_processor
from nats_jobs.testing import assert_enqueued, drain, set_up_streams

MARK

done = []


@job("ORDERS")
async def ship(job: Job[str]) -> None:
    done.append(job.payload)


async def test_something_is_left_behind(nats_url: str) -> None:
    async with job_processor(nats_url) as p:
        await set_up_streams(p, ship)
        await p.enqueue(ship, "a book")
        await assert_enqueued(p, ship, "a book")
        await p.js.create_key_value(bucket="things")


async def test_and_is_not_there_in_the_next_test(nats_url: str) -> None:
    async with job_processor(nats_url) as p:
        assert await p.js.streams_info() == []
        await p.start(ship)
        await p.enqueue(ship, "a lamp")
        await drain(p)
        await p.stop()
        assert done == ["a lamp"]
        done.clear()

"""


SOMEBODY_ELSES = """
import pytest


@pytest.fixture(scope="session")
def nats_server():
    class Production:
        url = "nats://production.example.org"

    return Production()


def test_it(nats_url): ...
"""
ENDED = """
import anyio


def test_it(nats_server, nats_url):
    nats_server.kill()
    while nats_server.running:
        pass
"""


def passed(file: Path, plugin: str, text: str) -> tuple[int, str]:
    """Run pytest on these tests; return how many have passed, and what it has printed."""
    file.write_text(text)
    unused = [word for name in sorted(OTHERS - {plugin}) for word in ("-p", f"no:{name}")]
    (file.parent / "pytest.ini").write_text(
        "\n".join(line for line in CONFIGURATION.splitlines() if line.split("_")[0] not in OTHERS - {plugin})
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-W",
        "error",
        *unused,
        str(file),
    ]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"(\d+) passed", done.stdout)
    return (int(found[1]) if found else 0), done.stdout


@pytest.mark.parametrize("plugin", sorted(OTHERS))
def test_each_test_has_an_empty_place_whichever_plugin_runs_it(plugin: str, tmp_path: Path) -> None:
    mark = "pytestmark = pytest.mark.anyio" if plugin == "anyio" else ""
    tests = TESTS.replace("MARK", mark)
    number, output = passed(tmp_path / "test_it.py", plugin, tests)
    assert number == (4 if plugin == "anyio" else 2), output


@pytest.mark.parametrize(
    ("text", "said"), [(SOMEBODY_ELSES, "takes none but"), (ENDED, "has ended the server")]
)
def test_what_it_cannot_clear_is_refused(text: str, said: str, tmp_path: Path) -> None:
    _, output = passed(tmp_path / "test_it.py", "anyio", text)
    assert said in output
    assert "1 error" in output
