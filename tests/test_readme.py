"""The pages are true: their programs print what they say, their fragments work, their pictures name what there is.

How a block is marked is in support/readme.py.
"""

from __future__ import annotations

import ast
import configparser
import dataclasses
import inspect
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyio.from_thread import start_blocking_portal

from nats_jobs import CancelReason, JobDef, JobProcessor, events, job_processor
from nats_jobs.server import run_server
from support.jobs import Seen, until
from support.readme import README, Block, Program, blocks, programs

ROOT = README.parent
# Every page of documentation, the front door first.
PAGES = [
    README,
    *(
        page
        for room in ("docker", "examples", "src", "tests")
        for page in sorted((ROOT / room).rglob("*.md"))
    ),
]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
TEXT = TEXTS[README]
BLOCKS = [block for page, text in TEXTS.items() for block in blocks(str(page.relative_to(ROOT)), text)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
PROGRAMS = programs(BLOCKS)
FRAGMENTS = [block for block in PYTHON if block.directive == "wrap"]
BACKENDS = ("asyncio", "trio")
# Other plugins for async tests, which would be asked to configure, and a directory that is not ours.
WITHOUT = [word for name in ("asyncio", "trio", "cacheprovider") for word in ("-p", f"no:{name}")]
LANGUAGES = {"python", "text", "sh", "yaml", "ini", "mermaid"}
DIRECTIVES = re.compile("|continue|beside|prelude|wrap|pytest|prints|prints, in any order|not run: .{10,}")
FEW = 2
LIMIT = 60.0
AT_ONCE = 3
SIGINT = "^C"

# Calls the program with the backend that is to be tested, whichever it asks for.
ON_BACKEND = """
import runpy, sys, anyio
run, (_, path, backend) = anyio.run, sys.argv
anyio.run = lambda *args, **options: run(*args, **{**options, "backend": backend})
runpy.run_path(path, run_name="__main__")
"""

# What the definitions of a fragment are given to perform, besides what the fragment enqueues itself.
PAYLOADS: dict[str, list[Any]] = {
    "Short jobs": ["ann@example.org"],
    "Long jobs": [["intro", "chase"]],
    "Timeouts": ["file.csv"],
    "Plain functions, in threads": ["cat.png"],
    "Blocking code in an async handler": ["hello"],
    "Stopping and deploys": [2],
    "Exclusive work": [1, 2],
    "Several definitions": [7],
    "Priorities": ["a book"],
    "Typing": [{"number": "seven"}],
}
# How often they fail on purpose, or are parked.
FAILURES = {"Timeouts": 1, "Dead letters": 6}
PARKED = {"Typing": 1, "Choosing how a job ends": 1, "Dead letters": 3}


# Programs...


class Process:
    """A program in its own process; its lines are waited for, never its time."""

    def __init__(self, source: str, file: Path, backend: str, url: str) -> None:
        file.write_text(source, encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", ON_BACKEND, str(file), backend],
            env=os.environ | {"NATS_URL": url, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def lines(self, count: int) -> list[str]:
        """Wait for the next `count` lines."""
        lines: list[str] = []
        try:
            while len(lines) < count:
                lines.append(self._lines.get(timeout=LIMIT))
        except queue.Empty:
            self._process.kill()
            pytest.fail(f"it printed no more than {lines}, and to stderr: {self.errors()}")

        return lines

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def finish(self) -> tuple[int, list[str], str]:
        """Wait for its end; return its exit code, the rest of its lines, and what it wrote to stderr."""
        errors = self.errors()
        self._reader.join(LIMIT)
        return self._process.wait(LIMIT), list(self._lines.queue), errors

    def errors(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.read()

    def close(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._reader.join(LIMIT)
        # Closes the pipes, and waits.
        with self._process:
            return


def perform(program: Program, backend: str, directory: Path) -> list[str]:
    """Run a program as its page shows it; return its lines, with the `^C` in the places where it was sent."""
    assert program.prints is not None
    expected = program.prints.text.splitlines()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(run_server()) as server:
        process = Process(program.source, directory / "program.py", backend, server.url)
        try:
            if program.beside is not None:
                run_to_end(Process(program.beside, directory / "beside.py", backend, server.url))

            return follow(process, expected)
        finally:
            process.close()


def run_to_end(process: Process) -> None:
    try:
        assert process.finish() == (0, [], "")
    finally:
        process.close()


def follow(process: Process, expected: list[str]) -> list[str]:
    printed: list[str] = []
    if SIGINT in expected:
        printed += process.lines(expected.index(SIGINT))
        process.interrupt()
        printed.append(SIGINT)

    code, rest, errors = process.finish()
    assert (code, errors) == (0, "")
    return printed + rest


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[Program, str], Future[list[str]]]]:
    """The runs of all selected tests, some at a time: a program waits more than it works."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (program, backend): pool.submit(perform, program, backend, tmp_path_factory.mktemp("program"))
            for program, backend in selected(request.session.items)
        }
        pool.shutdown(cancel_futures=True)


def selected(items: list[pytest.Item]) -> list[tuple[Program, str]]:
    candidates = [getattr(item, "callspec", None) for item in items if item.path == Path(__file__)]
    params = [callspec.params for callspec in candidates if callspec]
    return [(each["program"], each["backend"]) for each in params if "program" in each]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_a_program_prints_what_its_page_says(
    program: Program, backend: str, runs: dict[tuple[Program, str], Future[list[str]]]
) -> None:
    assert program.prints is not None
    printed, expected = runs[program, backend].result(), program.prints.text.splitlines()
    if program.prints.directive.endswith("in any order"):
        printed, expected = sorted(printed), sorted(expected)

    assert printed == expected


@pytest.mark.parametrize("block", [block for block in PYTHON if block.directive == "pytest"], ids=str)
def test_tests_written_as_a_page_shows_pass_on_both_backends(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "test_handlers.py"
    file.write_text(block.text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *WITHOUT, str(file)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert result.returncode == 0, result.stdout
    tests = len(re.findall(r"^async def test_", block.text, re.MULTILINE))
    assert re.search(rf"\b{tests * len(BACKENDS)} passed", result.stdout)


# Fragments...


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.parametrize("fragment", FRAGMENTS, ids=str)
async def test_a_fragment_works_and_each_of_its_definitions_completes_a_job(
    fragment: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    async with run_server() as server:
        monkeypatch.setenv("NATS_URL", server.url)
        async with job_processor(on_event=seen) as p:
            definitions = await execute(fragment, p)
            started = {(event.stream, event.consumer) for event in seen.of(events.Start)}
            for defn in definitions:
                if (defn.stream, defn.consumer) not in started:
                    await p.start(defn)

            await complete(p, definitions, PAYLOADS.get(fragment.heading, []))

    completed = {(event.stream, event.consumer) for event in seen.of(events.Complete)}
    assert completed >= {(defn.stream, defn.consumer) for defn in definitions}
    assert len(seen.of(events.Error)) == FAILURES.get(fragment.heading, 0)
    assert len(seen.of(events.DeadLettered)) == PARKED.get(fragment.heading, 0)


async def execute(fragment: Block, p: JobProcessor) -> list[JobDef[Any]]:
    """Run a fragment after the prelude; return the definitions that it makes."""
    (prelude,) = [block for block in PYTHON if block.directive == "prelude"]
    namespace: dict[str, Any] = {"__name__": "readme", "p": p}
    for block in (prelude, fragment):
        code = compile(
            block.code, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        awaitable = eval(code, namespace)
        if code.co_flags & inspect.CO_COROUTINE:
            await awaitable

    return [value for value in namespace.values() if isinstance(value, JobDef)]


async def complete(p: JobProcessor, definitions: list[JobDef[Any]], payloads: list[Any]) -> None:
    """Give the last definition something to do, and wait until all is done."""
    for payload in payloads:
        await p.enqueue(definitions[-1], payload)

    # In this order: the job of a later definition may enqueue one for an earlier one.
    for defn in reversed(definitions):
        await until(partial(is_settled, p, defn))

    await p.stop()


async def is_settled(p: JobProcessor, defn: JobDef[Any]) -> bool:
    """Whether all jobs of a definition are done. Its stream may have the records of schedules, too."""
    waiting = await p.scheduled(defn)
    info = await p.js.consumer_info(defn.stream, defn.consumer)
    return not waiting and not info.num_pending and not info.num_ack_pending


# The blocks themselves...


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_has_a_language_and_is_marked_in_a_way_that_is_known(block: Block) -> None:
    assert block.language in LANGUAGES
    assert DIRECTIVES.fullmatch(block.directive), block.directive


def test_every_mark_belongs_to_a_block() -> None:
    assert sum(text.count("<!-- test:") for text in TEXTS.values()) == sum(
        block.directive != "" for block in BLOCKS
    )


def test_every_program_says_what_it_prints() -> None:
    assert [str(program) for program in PROGRAMS if program.prints is None] == []


def test_few_blocks_are_not_run() -> None:
    assert sum(block.directive.startswith("not run") for block in BLOCKS) <= FEW


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_python_block_is_python(block: Block) -> None:
    compile(block.code, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in ("yaml", "ini")], ids=str)
def test_every_configuration_can_be_read(block: Block) -> None:
    if block.language == "yaml":
        assert yaml.safe_load(block.text)
    else:
        parser = configparser.ConfigParser()
        parser.read_string(block.text)
        assert parser.sections()


# Commands, files, links...


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=str)
def test_every_command_is_one_line_that_a_shell_can_read(block: Block) -> None:
    assert len(block.text.splitlines()) == 1
    subprocess.run(["sh", "-n"], input=block.text, text=True, check=True, timeout=LIMIT)


def commands() -> tuple[str, str]:
    """The two of the first screen. CI runs both in full; here only what they name is looked up."""
    quickstart, everything = [
        block.text.strip() for block in BLOCKS if block.language == "sh" and block.page == README.name
    ]
    return quickstart, everything


def test_the_first_command_names_extras_and_an_example_that_exist() -> None:
    command, _ = commands()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.search(r"'\.\[([\w,]+)\]'", command)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert (ROOT / command.split()[-1]).is_file()


def test_the_second_command_is_what_ci_runs() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    steps = [line for line in lines if line.startswith(("python3 ", ".venv/"))]
    plain = [re.sub(r' --[\w-]+| "\$@"', "", step) for step in steps]
    assert commands()[1] == " && ".join(plain)


def test_both_commands_are_on_the_first_screen() -> None:
    assert all(TEXT.index(command) < TEXT.index("\n## ") for command in commands())


def test_every_file_that_is_named_exists() -> None:
    text = "".join(TEXTS.values())
    named = set(re.findall(r"`((?:examples|docker|src|tests|\.ci)/[\w./-]*)`", text))
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_example_is_named() -> None:
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    index = TEXTS[ROOT / "examples" / "README.md"]
    assert {name for name in examples if f"| [{name}]({name}) |" not in index} == set()


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(page: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    if not target.exists():
        return False

    return not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_a_heading_that_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", TEXTS[page])
    assert [link for link in links if not leads_somewhere(page, link)] == []


def linked(page: Path) -> set[Path]:
    """The files that a page links to."""
    return {(page.parent / link).resolve() for link in re.findall(r"\]\((?!https?:)([^)\s#]+)", TEXTS[page])}


def test_the_readme_has_every_page_in_its_index() -> None:
    assert [page for page in PAGES[1:] if page.resolve() not in linked(README)] == []


def test_the_readme_is_short() -> None:
    assert len(TEXT.splitlines()) <= 450


@pytest.mark.parametrize("page", sorted((ROOT / "src").rglob("*.md")), ids=lambda page: page.name)
def test_a_page_in_the_package_links_to_nothing_that_is_not_in_it(page: Path) -> None:
    assert [file for file in linked(page) if not file.is_relative_to(ROOT / "src")] == []


# Names...


def documented(kind: type) -> set[str]:
    """The fields of a class that have a docstring below them."""
    (body,) = [
        node.body
        for file in sorted((ROOT / "src" / "nats_jobs" / "jobs").glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    ]
    return {
        field.target.id
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def test_every_field_of_a_definition_has_a_docstring() -> None:
    assert documented(JobDef) == {field.name for field in dataclasses.fields(JobDef)}


def test_every_argument_of_a_processor_is_in_its_docstring() -> None:
    text = inspect.getdoc(job_processor) or ""
    words = set(re.findall(r"\w+", text.partition("Args:")[2]))
    assert set(inspect.signature(job_processor).parameters) <= words


@pytest.mark.parametrize("reason", [reason.name for reason in CancelReason])
def test_every_reason_is_in_the_readme(reason: str) -> None:
    assert re.search(rf"\b{reason}\b", TEXT)


def test_the_table_of_events_has_every_event() -> None:
    rows = re.findall(r"^\| (`.*?) \|", events.__doc__ or "", flags=re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == set(events.__all__) - {"Event", "WorkerEvent", "JobEvent", "ScheduleEvent"}


def test_the_tests_that_a_page_names_exist() -> None:
    named = {match for text in TEXTS.values() for match in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)}
    assert [
        name for file, name in named if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ] == []


# Pictures...


def arrows() -> set[tuple[str, str]]:
    """Which package imports which, as ARCHITECTURE draws it."""
    picture = next(block for block in BLOCKS if block.language == "mermaid")
    return set(re.findall(r"^ +(\w+) --> (\w+)$", picture.text, flags=re.MULTILINE))


def test_the_picture_of_the_packages_has_each_with_all_that_it_imports() -> None:
    source = ROOT / "src" / "nats_jobs"
    packages = {path.parent.name for path in source.glob("*/__init__.py")}
    imported = {
        (package, other)
        for package in packages
        for file in (source / package).rglob("*.py")
        for others in re.findall(
            r"^ *from \.\.+(?: import )?(\w+(?:, \w+)*)", file.read_text(encoding="utf-8"), re.MULTILINE
        )
        for other in others.split(", ")
        if other in packages - {package}
    }
    # `Job.processor` names the class of the whole processor, for type checkers only.
    assert arrows() == imported - {("jobs", "processor")}
