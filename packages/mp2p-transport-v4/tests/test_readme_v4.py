"""The programs in this package's README run."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
# Beside the tests in the repository; in the metadata of the wheel when they run on what was installed.
TEXT = (
    README.read_text(encoding="utf-8")
    if README.exists()
    else str(metadata("mp2p-transport-v4").get_payload())
)
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_runs(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_there_is_one() -> None:
    assert PROGRAMS
