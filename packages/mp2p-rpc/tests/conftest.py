"""Run every async test on both event loops, also when this package is tested alone."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=[pytest.param(("asyncio", {}), id="asyncio"), pytest.param(("trio", {}), id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param
