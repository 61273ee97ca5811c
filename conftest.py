"""What holds for the whole suite: which event loops, no deadlines, how many tests beside each other, no skips in CI."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ON_CI = os.environ.get("CI") == "true"

# A machine that stands still for a moment proves nothing about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not ON_CI:  # hypothesis's own profile for CI says the same, and more
    settings.load_profile("unhurried")

if sys.dont_write_bytecode:
    # The suite starts hundreds of programs, and each would compile every module for itself.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).with_name(".pytest_cache") / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run whole folders on two workers for each processor, because many tests wait for a network.

    Single files run as they are, also without pytest-xdist; `-n` says otherwise, and `-n 0` means one by one.
    """
    option = config.option
    chosen = hasattr(config, "workerinput") or getattr(option, "numprocesses", 0) is not None
    if not chosen and not option.usepdb and any(map(os.path.isdir, config.args)):
        option.numprocesses = 2 * (os.cpu_count() or 1)
        option.dist = "worksteal"


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
