"""One command is what CI runs: `nox`. Each session can be run alone: `nox -s lint`."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "tests", "examples", "package"]

PYTHONS = ["3.11", "3.12", "3.13"]
PROJECT = nox.project.load_toml("pyproject.toml")


def install_group(session: nox.Session, group: str) -> None:
    """Install the project, editable, with a dependency group."""
    session.install("-e", ".[trio,server,nkeys]", *nox.project.dependency_groups(PROJECT, group))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite, on each Python that is found."""
    install_group(session, "test")
    session.run("pytest", "--ignore=tests/test_examples.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    install_group(session, "types")
    session.run("mypy")
    session.run("pyright")


@nox.session
def examples(session: nox.Session) -> None:
    """Every example by itself, its output compared; and every snippet of the README."""
    install_group(session, "test")
    session.run("pytest", "tests/test_examples.py", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build once; the wheel, alone in a clean environment, must import and run."""
    session.install("build")
    out = session.create_tmp()
    session.run("python", "-m", "build", "--outdir", out)
    session.run("python", "-m", "venv", "--clear", f"{out}/clean", external=True)
    python = f"{out}/clean/bin/python"
    session.run(python, "-m", "pip", "install", "-q", "--no-index" if False else "-q", f"{out}/PLACEHOLDER", external=True)
    session.run(python, "-c", "import nats_jobs; print(nats_jobs.__version__)", external=True)
    session.run(f"{out}/clean/bin/nats-jobs", "--version", external=True)
