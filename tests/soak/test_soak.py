"""A short form of the soak. The long form is `nox -s soak`."""

from __future__ import annotations

import pytest

from soak.order import BACKENDS, Soak
from soak.run import run_soak

pytestmark = pytest.mark.anyio

# A leak of a kilobyte for each job would be 4 MB here; that a process grows by some until it is warm is normal.
FAR_TOO_MUCH_MB = 50


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("backend", BACKENDS)
async def test_nothing_of_a_worker_grows_with_the_jobs_it_has_performed(backend: str) -> None:
    report = await run_soak(Soak(jobs=4000, failing=240, backend=backend, samples=5))
    print(report)  # noqa: T201
    assert not report.problems()
    assert report.growth_mb < FAR_TOO_MUCH_MB


@pytest.mark.parametrize(("jobs", "failing"), [(10, 3), (5, 5), (7, 0), (0, 4), (1000, 60)])
def test_as_many_jobs_fail_as_were_asked_for(jobs: int, failing: int) -> None:
    soak = Soak(jobs=jobs, failing=failing, backend="asyncio")
    payloads = [*soak.payloads(0, 4), *soak.payloads(4, soak.total)]
    assert [abs(number) for number in payloads] == list(range(1, soak.total + 1))
    assert sum(number < 0 for number in payloads) == failing
