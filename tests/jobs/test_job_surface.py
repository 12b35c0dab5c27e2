"""What a handler sees of the library: `Job`, and where its names say that they come from."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from typing import get_type_hints

import pytest

import nats_jobs
from nats_jobs import DetachedJob, Enqueued, EnqueueRequest, Fence, Job, JobDef, JobOptions
from nats_jobs.jobs import _job


def test_a_job_shows_only_what_a_handler_may_touch() -> None:
    assert [name for name in dir(Job) if not name.startswith("_")] == [
        "attempt",
        "check_cancelled",
        "data",
        "defn",
        "enqueued_at",
        "fence",
        "headers",
        "id",
        "num_attempts",
        "payload",
        "pending",
        "processor",
        "progress",
        "reason",
        "schedule_id",
        "scheduled_for",
        "sequence",
        "shield",
        "stopping",
        "stream",
        "subject",
        "wait_stopping",
        "working",
    ]


def test_a_job_does_not_know_its_worker() -> None:
    tree = ast.parse(Path(_job.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not modules & {"_worker", "_attempt", "_lease"}


def test_what_is_public_does_not_name_the_file_that_it_is_in() -> None:
    modules = {name: getattr(getattr(nats_jobs, name), "__module__", "") for name in nats_jobs.__all__}
    assert not {name: module for name, module in modules.items() if "._" in module}
    assert Job.__module__ == "nats_jobs"


@pytest.mark.parametrize("public", [Job, JobDef, DetachedJob, EnqueueRequest, Enqueued, Fence, JobOptions])
def test_the_annotations_of_what_is_public_can_be_resolved(public: type) -> None:
    """As libraries do that validate, or make schemas of, what they are given."""
    hints = get_type_hints(public)
    assert not [name for name, hint in hints.items() if isinstance(hint, str)]
    assert hints.keys() >= getattr(public, "__annotations__", {}).keys()


# Two nouns that name each other: a definition is performed with a job, and a job has its definition.
BY_ANNOTATION = {("_job", "_definition")}


def test_no_file_of_the_jobs_imports_itself_by_way_of_others() -> None:
    graph = {
        file.stem: {
            name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and node.level == 1
            for name in ([node.module] if node.module else [alias.name for alias in node.names])
            if (file.stem, name) not in BY_ANNOTATION
        }
        for file in Path(_job.__file__).parent.glob("_*.py")
        if file.stem != "__init__"
    }
    TopologicalSorter(graph).prepare()
