"""A processor in the lifespan of an ASGI app, served by real servers in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import STDOUT

import anyio
import httpx2
import pytest
from anyio.abc import Process
from nats.js.api import StreamConfig

from nats_jobs import job_processor
from nats_jobs.server import Server, run_server

EXAMPLES = Path(__file__).parents[2] / "examples"
PATH = os.pathsep.join([str(EXAMPLES), str(Path(__file__).parent)])
LIMIT = 60.0
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Of the test. That of the app is a matter of its server."""
    return "asyncio"


@pytest.fixture(
    params=[["uvicorn"], ["hypercorn"], ["hypercorn", "--worker-class", "trio"]],
    ids=["uvicorn", "hypercorn", "trio"],
)
def asgi_server(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.param
    return command


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@asynccontextmanager
async def serving(
    asgi_server: list[str], app: str, server: Server, log: Path, **variables: str
) -> AsyncIterator[tuple[Process, str]]:
    """The process of a server, and the app's URL, when it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    bind = ["--port", str(port)] if asgi_server[0] == "uvicorn" else ["--bind", f"127.0.0.1:{port}"]
    environment = {**os.environ, "NATS_URL": server.url, "PYTHONPATH": PATH, **variables}
    with log.open("wb") as out:
        process = await anyio.open_process(
            [sys.executable, "-m", *asgi_server, app, *bind], stdout=out, stderr=STDOUT, env=environment
        )

    async with process:
        try:
            with anyio.fail_after(LIMIT):
                while process.returncode is None and not await accepts(port):
                    await anyio.sleep(0.05)

            yield process, f"http://127.0.0.1:{port}"
        finally:
            if process.returncode is None:
                process.kill()


async def accepts(port: int) -> bool:
    try:
        stream = await anyio.connect_tcp("127.0.0.1", port)
    except OSError:
        return False

    await stream.aclose()
    return True


async def post(url: str) -> str:
    async with httpx2.AsyncClient() as client:
        return (await client.post(url)).text


def text(log: Path) -> str:
    return log.read_text()


async def printed(log: Path, line: str) -> None:
    while line not in text(log).splitlines():
        await anyio.sleep(0.02)


async def test_a_server_that_ends_lets_the_job_in_hand_end_first(asgi_server: list[str], log: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with (
            run_server() as server,
            serving(asgi_server, "app:app", server, log, PERFORM="yes") as (process, url),
        ):
            assert await post(url) == "1"
            await printed(log, "begun")
            process.send_signal(signal.SIGTERM)
            await process.wait()
            found = text(log)
            assert found.index("begun") < found.index("performed") < found.index("left")


async def test_an_app_that_only_enqueues_ends_at_once(asgi_server: list[str], log: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with run_server() as server, job_processor(server.url) as p:
            await p.js.add_stream(StreamConfig(name="SLOW", subjects=["SLOW"]))
            async with serving(asgi_server, "app:app", server, log, PERFORM="no") as (process, url):
                assert await post(url) == "1"
                process.send_signal(signal.SIGTERM)
                await process.wait()
                assert "left" in text(log)
                assert "begun" not in text(log)


async def test_a_processor_that_fails_ends_the_app_and_says_why(asgi_server: list[str], log: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with run_server() as server, job_processor(server.url) as p:
            async with serving(asgi_server, "fastapi_app:app", server, log, MAILS="MAILS") as (process, url):
                assert await post(f"{url}/signup?address=ada@example.org") == '{"job":1}'
                await p.js.delete_stream("MAILS")
                await process.wait()
                assert "stream 'MAILS' was deleted" in text(log)
