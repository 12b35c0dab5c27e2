"""Snapshots as the Node library writes them, and as it reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nats_jobs.topology import dump_snapshot, load_snapshot, resume_topology, run_topology
from support.topologies import Scraper, authorisation, candidate

pytestmark = pytest.mark.anyio

TIMES = {"started": "2026-01-02T03:04:05.678Z", "finished": "2026-01-02T03:04:06.789Z"}
DONE = {"status": "completed", **TIMES}
WORK = {"type": "work"}

ERRORED = {
    "status": "errored",
    **TIMES,
    "stream": "scraper",
    "streamSequence": 4,
    "numAttempts": 1,
    "data": {
        "api": {**WORK, **DONE, "deps": [], "input": [], "output": [1, 2, 3]},
        "details": {
            **WORK,
            **DONE,
            "deps": ["api"],
            "input": [[1, 2, 3]],
            "output": {"1": "details 1", "2": "details 2", "3": "details 3"},
        },
        "attachments": {
            **WORK,
            "deps": ["api"],
            "status": "errored",
            **TIMES,
            "input": [[1, 2, 3]],
            "state": {"index": 0, "output": {"1": "attachments 1"}},
            "error": {"stack": "Error: no such attachment"},
        },
        "writeToDB": {**WORK, "deps": ["details", "attachments"], "status": "pending"},
    },
}

SUSPENDED = {
    "status": "suspended",
    **TIMES,
    "data": {
        "input": {**WORK, **DONE, "deps": [], "input": ["x"], "output": "x"},
        "lookupA": {**WORK, **DONE, "deps": ["input"], "input": ["x"], "output": "A"},
        "lookupB": {**WORK, **DONE, "deps": ["input"], "input": ["x"], "output": "B"},
        "authorization": {
            "type": "suspension",
            **DONE,
            "deps": ["lookupA", "lookupB"],
            "input": ["A", "B"],
        },
        "email": {**WORK, "deps": ["authorization"], "status": "suspended"},
    },
}


async def test_a_run_that_failed_there_is_finished_here() -> None:
    scraper = Scraper()
    scraper.works = True
    snapshot = await resume_topology(scraper.topology, load_snapshot(json.dumps(ERRORED)))
    assert snapshot.status == "completed"
    assert scraper.calls == ["attachments", "writeToDB"]
    assert scraper.written[0][1] == {str(id): f"attachments {id}" for id in (1, 2, 3)}
    assert snapshot.extra["streamSequence"] == 4


async def test_a_run_that_was_suspended_there_is_answered_here() -> None:
    mails: list[Any] = []
    loaded = load_snapshot(json.dumps(SUSPENDED))
    assert loaded.suspended == ["authorization"]
    await resume_topology(authorisation(mails), loaded, answers={"authorization": "yes"})
    assert mails == [(("A", "B"), "yes")]


async def test_a_run_that_is_completed_there_does_not_run_here() -> None:
    done = {"status": "completed", **TIMES, "data": {"api": ERRORED["data"]["api"]}}  # type: ignore[index]
    loaded = load_snapshot(json.dumps(done))
    assert await resume_topology(Scraper().topology, loaded) is loaded


async def test_selecting_nothing_is_the_text_of_a_symbol_there() -> None:
    stored = json.loads(dump_snapshot(await run_topology(candidate(), data="nobody")))
    assert stored["data"]["determineIfQualified"]["selected"] == "Symbol(NONE)"
    assert load_snapshot(json.dumps(stored))["determineIfQualified"].selected is None


async def test_what_is_stored_here_has_the_names_that_are_read_there() -> None:
    stored = json.loads(dump_snapshot(await run_topology(authorisation([]), data="x")))
    assert {"status", "started", "finished", "data"} <= set(stored)
    assert stored["status"] == "suspended"
    for node in stored["data"].values():
        known = {
            "type",
            "deps",
            "status",
            "started",
            "finished",
            "input",
            "output",
            "state",
            "error",
            "selected",
        }
        assert {"type", "deps", "status"} <= set(node) <= known

    assert stored["data"]["lookupA"]["started"].endswith("Z")
    # The Node library's dates have milliseconds.
    assert len(stored["started"]) == len("2026-01-02T03:04:05.678Z")
