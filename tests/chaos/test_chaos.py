"""A short form of the chaos suite: one seed, both backends. The long form is `nox -s chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .scenario import Scenario, run_scenario

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_under_random_faults_nothing_is_lost_and_nothing_overlaps(backend: str, tmp_path: Path) -> None:
    # The seed is fixed, so that a failure can be repeated: `python -m chaos --seed 11 --jobs 2000`.
    report = await run_scenario(Scenario(seed=11, backend=backend, jobs=2000, folder=tmp_path, limit=100))
    print(report)  # noqa: T201
    assert report.faults.total() > 0
    assert report.holds, str(report)
