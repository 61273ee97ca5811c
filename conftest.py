"""Checks that hold for the whole suite: which event loops, and what may not be skipped in CI."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

ON_CI = os.environ.get("CI") == "true"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped network test into a failure in CI, where everything it needs is installed."""
    report = yield
    if ON_CI and report.skipped and item.get_closest_marker("network") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"a network test may not skip in CI: {report.longrepr}"
    return report


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {}), id="asyncio"),
        pytest.param(("trio", {}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run every async test on both event loops."""
    return request.param
