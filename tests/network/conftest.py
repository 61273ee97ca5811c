"""Fixtures of the network lab."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # makes the lab importable as `netlab`

from netlab.lab import Lab
from netlab.namespaces import unavailable

_lab_of_test = pytest.StashKey[Lab]()


@pytest.fixture(scope="session")
def lab_permitted() -> None:
    """Skip, with the reason, where this machine cannot run the lab."""
    if reason := unavailable():
        pytest.skip(reason)


@pytest.fixture
def lab(lab_permitted: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Give the test a lab of its own, and remove it whatever happens."""
    with Lab() as made:
        request.node.stash[_lab_of_test] = made
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what every program of the lab printed to the report of a failed test."""
    report = yield
    made = item.stash.get(_lab_of_test, None)
    if report.failed and made is not None:
        report.sections.extend(made.transcripts())
    return report
