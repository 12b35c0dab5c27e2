"""Every loop that a program may run on, for tests whose subject depends on the loop. Import the fixture."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ("anyio_backend",)


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(("trio", {}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param
