"""`nox` runs what CI runs. Each session can be run alone: `nox -s lint`."""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests", "examples", "package"]
# The suite needs a Python that is installed; those that are not are left out.
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)


def install(session: nox.Session, group: str) -> None:
    """Install the project, editable, with a dependency group."""
    session.install("-e", ".[trio,server,nkeys,websocket]", *nox.project.dependency_groups(PROJECT, group))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite, on each Python that is found."""
    install(session, "test")
    # Most tests wait for a server or a clock: more of them at once than there are cores.
    others = ("--ignore=tests/test_examples.py", "--ignore=tests/test_readme.py")
    session.run("pytest", "-n", "4", *others, *session.posargs)


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
    """Each example by itself, its output compared; every snippet of the README."""
    install(session, "test")
    session.run("pytest", "tests/test_examples.py", "tests/test_readme.py", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build once; the wheel must import and run, alone in a clean environment."""
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
