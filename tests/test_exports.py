"""What is public is listed, exists, and is what the README names."""

from __future__ import annotations

import importlib
import pickle
import pkgutil

import pytest

import nats_jobs
from nats_jobs import (
    codecs,
    dead_letters,
    errors,
    events,
    jetstream,
    jobs,
    processor,
    server,
    sync,
    testing,
    topology,
    wire,
)

PUBLIC = [
    nats_jobs,
    codecs,
    dead_letters,
    errors,
    events,
    jetstream,
    jobs,
    processor,
    server,
    sync,
    testing,
    topology,
    wire,
]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_all_lists_what_is_there_in_order(module: object) -> None:
    names = module.__all__  # type: ignore[attr-defined]
    assert isinstance(names, tuple)
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(module, name)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_a_star_import_brings_exactly_what_is_listed(module: object) -> None:
    namespace: dict[str, object] = {}
    exec(f"from {module.__name__} import *", namespace)  # type: ignore[attr-defined]
    namespace.pop("__builtins__")
    assert set(namespace) == set(module.__all__)  # type: ignore[attr-defined]


def test_the_names_of_the_design_are_there() -> None:
    design = [
        "job_processor",
        "JobProcessor",
        "JobHandle",
        "JobDef",
        "job",
        "Job",
        "CancelReason",
        "Retry",
        "Snooze",
        "Reject",
        "exp_backoff",
        "run",
        "NatsJobsError",
        "ConfigMismatch",
        "ConnectionLost",
        "JobTimeout",
    ]
    assert set(design) <= set(nats_jobs.__all__)


def test_every_module_can_be_imported_by_itself() -> None:
    for module in pkgutil.walk_packages(nats_jobs.__path__, "nats_jobs."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_every_error_prints_and_survives_pickling() -> None:
    examples = {
        "text": "x",
        "server": "nats://h:1",
        "reasons": (("nats://h:1", "refused"),),
        "differences": (errors.Difference("ack_wait", 1, 2),),
        "failures": {3: errors.NoResponders("s")},
        "looked_in": ("PATH",),
        "dropped": 2,
        "size": 9,
        "limit": 8,
        "seconds": 1.5,
        "sequence": 7,
        "total": 4,
        "err_code": 10077,
        "delay": 2.0,
    }
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind is errors.NatsJobsError or not (isinstance(kind, type) and issubclass(kind, Exception)):
            continue

        fields = getattr(kind, "__dataclass_fields__", {})
        error = kind(**{field: examples.get(field, "x") for field in fields})
        assert str(error)
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert str(copy) == str(error)
        assert isinstance(error, errors.NatsJobsError)
