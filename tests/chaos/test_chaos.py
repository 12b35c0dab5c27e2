"""A short form of the chaos suite, about a minute long. The long form is `nox -s chaos`.

The seeds are fixed, so that a failure can be repeated: `python -m chaos --seed 21 --jobs 3000`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .scenario import Scenario, run_scenario

# One at a time: they need the machine for themselves. No time is asserted; what hangs is given up.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.xdist_group("chaos")]

LIMIT = 280.0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_under_random_faults_nothing_is_lost_and_nothing_overlaps(backend: str, tmp_path: Path) -> None:
    # These begin with the server's death, a link that is cut, one that is slow, one that is held up.
    scenario = Scenario(seed=21, backend=backend, jobs=3000, limit=LIMIT)
    await _holds(scenario, tmp_path)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_three_nodes_under_random_faults_lose_nothing_and_nothing_overlaps(tmp_path: Path) -> None:
    # A leader is parted from the others, another is killed.
    scenario = Scenario(seed=6, backend="trio", jobs=1000, cluster=True, pace=2.0, limit=LIMIT)
    await _holds(scenario, tmp_path)


async def _holds(scenario: Scenario, folder: Path) -> None:
    report = await run_scenario(scenario, folder)
    print(report)  # noqa: T201
    assert report.faults.total() > 0
    assert report.holds, str(report)
