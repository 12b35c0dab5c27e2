"""Imports go one way: to a lower rank, and into another room only by its public name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import nats_jobs

ROOT = Path(nats_jobs.__file__).parent
RANKS = [
    {
        "errors",
        "events",
        "units",
        "_version",
        "_clock",
        "_groups",
        "_mailbox",
        "_child_process",
        "_parent_death",
    },
    {"backoff", "_untrusted"},
    {"wire", "codecs", "server"},
    {"jetstream"},
    {"dead_letters"},
    {"delays"},
    {"jobs"},
    {"scheduler", "topology"},
    {"processor"},
    {"cli", "sync", "testing"},
    {"__main__"},
]
# An annotation of a public class that names a higher one; nothing is imported when the program runs.
ANNOTATIONS = {("jobs/_job.py", "processor")}
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}


def imports() -> Iterator[tuple[Path, str, list[str]]]:
    """Yield (file, its room, the path of what it imports inside the package)."""
    for file in sorted(ROOT.rglob("*.py")):
        place = file.relative_to(ROOT).with_suffix("").parts
        if place == ("__init__",):
            continue

        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = list(place[: len(place) - node.level])
                target = base + (node.module.split(".") if node.module else [])
                for alias in node.names:
                    yield file, place[0], target or [alias.name]
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else [alias.name for alias in node.names]
                )
                assert not any(name.split(".")[0] == "nats_jobs" for name in names), (
                    f"{file}: import relatively"
                )


def test_every_file_is_in_a_room_with_a_rank() -> None:
    assert {room for _, room, _ in imports()} <= set(RANK)


def test_a_room_imports_only_from_lower_ranks() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {'.'.join(target)}"
        for file, room, target in imports()
        if target[0] != room
        and RANK[target[0]] >= RANK[room]
        and (file.relative_to(ROOT).as_posix(), target[0]) not in ANNOTATIONS
    ]
    assert not wrong


def test_another_room_is_imported_by_its_public_name_only() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} reaches into {'.'.join(target)}"
        for file, room, target in imports()
        if target[0] != room and len(target) > 1
    ]
    assert not wrong


def test_wire_knows_nothing_of_jobs_or_events() -> None:
    assert not [
        target
        for _, room, target in imports()
        if room == "wire" and target[0] in ("events", "jetstream", "jobs")
    ]


def test_jobs_never_sees_a_socket() -> None:
    for file in (ROOT / "jobs").glob("*.py"):
        text = file.read_text()
        assert "import socket" not in text
        assert "connect_tcp" not in text


def test_the_files_of_the_wire_import_each_other_without_a_circle() -> None:
    """Also those that only a type checker follows."""
    graph: dict[str, set[str]] = {}
    for file, room, target in imports():
        if room == "wire" and file.stem != "__init__":
            names = {target[1]} if target[0] == "wire" and len(target) > 1 else _siblings(file, target)
            graph.setdefault(file.stem, set()).update(names)

    list(TopologicalSorter(graph).static_order())


def _siblings(file: Path, target: list[str]) -> set[str]:
    """`from . import _commands`: the names are files beside it, if there are such."""
    names = [
        alias.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module is None
        for alias in node.names
    ]
    return {name for name in names if target == ["wire"] and file.with_name(f"{name}.py").exists()}


def test_a_worker_waits_for_no_room_that_it_may_not_need() -> None:
    """Rooms above `jobs` are imported by the methods that stand for them; the processor has these at its top."""
    program = "import sys, nats_jobs; print(*sys.modules)"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    rooms = {"topology", "scheduler", "cli", "server", "testing", "sync"}
    assert loaded.isdisjoint({f"nats_jobs.{room}" for room in rooms} | {"trio", "uvloop"})
