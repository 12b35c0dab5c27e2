"""Every example runs by itself, without a warning, prints what it says it prints, and leaves nothing behind.

What it should print is in its docstring, under "Prints::", or in tests/expected/NAME.txt.
"""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from nats_jobs import job_processor
from nats_jobs.server import run_server

EXAMPLES = Path(__file__).parents[1] / "examples"
EXPECTED = Path(__file__).parent / "expected"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
# It runs on one backend after the other, in one process.
ON_BOTH_BY_ITSELF = "quickstart"
TIMEOUT = 60.0
AT_ONCE = 2


@dataclass(frozen=True)
class Run:
    name: str
    backend: str
    own_server: bool

    def __str__(self) -> str:
        return f"{self.name}-{self.backend}-{'own_server' if self.own_server else 'given_url'}"


@dataclass(frozen=True)
class Result:
    """What came of a run; `left` are the streams of the given server afterwards, with their number of messages."""

    code: int
    out: str
    err: str
    left: dict[str, int]


RUNS = [
    Run(name, backend, own_server)
    for name in NAMES
    for backend, own_server in (("asyncio", True), ("trio", True), ("asyncio", False))
    if name != ON_BOTH_BY_ITSELF or backend == "asyncio"
]


def expectation(name: str) -> str:
    """What the example says it prints; empty when it does not say."""
    file = EXPECTED / f"{name}.txt"
    if file.exists():
        return file.read_text(encoding="utf-8")

    docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8")))
    _, found, text = (docstring or "").partition("\nPrints::\n\n")
    return inspect.cleandoc(text) + "\n" if found else ""


def perform(run: Run) -> Result:
    if run.own_server:
        return in_process(run, [], {})

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(run_server()) as server:
        result = in_process(run, [server.url], {})
        result.left.update(portal.call(streams, server.url))
        return result


def in_process(run: Run, arguments: list[str], left: dict[str, int]) -> Result:
    process = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{run.name}.py"), *arguments],
        env=os.environ | {"BACKEND": run.backend, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    return Result(process.returncode, process.stdout, process.stderr, left)


async def streams(url: str) -> dict[str, int]:
    async with job_processor(url) as processor:
        return {str(info.config.name): info.state.messages for info in await processor.js.streams_info()}


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[Run, Future[Result]]]:
    """The runs of all selected tests, two at a time: an example waits more than it works."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {run: pool.submit(perform, run) for run in selected_runs(request.session.items)}
        pool.shutdown(cancel_futures=True)


def selected_runs(items: list[pytest.Item]) -> list[Run]:
    candidates = [getattr(item, "callspec", None) for item in items if item.path == Path(__file__)]
    return [callspec.params["run"] for callspec in candidates if callspec and "run" in callspec.params]


def errands_by_name(out: str) -> list[str]:
    """The quickstart's errands run at the same time: only the order of the lines about one of them is certain."""
    lines: list[str] = []
    for are_errands, block in groupby(out.splitlines(), is_about_errand):
        lines += sorted(block, key=first_word if are_errands else lambda line: "")

    return lines


def is_about_errand(line: str) -> bool:
    return first_word(line) in ("quick", "flaky", "slow")


def first_word(line: str) -> str:
    return line.split()[0]


NORMALISED: dict[str, Callable[[str], list[str]]] = {"quickstart": errands_by_name}


@pytest.mark.parametrize("name", NAMES)
def test_every_example_says_what_it_prints(name: str) -> None:
    assert expectation(name), f'it needs "Prints::" in its docstring, or tests/expected/{name}.txt'


def test_every_expectation_has_its_example() -> None:
    assert {path.stem for path in EXPECTED.glob("*")} <= set(NAMES)


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_an_example_prints_what_it_says_and_leaves_nothing_behind(
    run: Run, results: dict[Run, Future[Result]]
) -> None:
    result = results[run].result()
    normalised = NORMALISED.get(run.name, str.splitlines)
    assert (result.err, result.code) == ("", 0)
    assert normalised(result.out) == normalised(expectation(run.name))
    # These are made once and stay: the stream for dead letters, the one on which changes of streams take turns.
    assert result.left.keys() <= {"DEAD_LETTERS", "NATS_JOBS_SETUP"}
    assert not any(result.left.values())


def test_the_quickstart_says_last_that_all_is_well() -> None:
    assert expectation("quickstart").splitlines()[-1].startswith("All is well")
