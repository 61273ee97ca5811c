"""A child process of a benchmark: `python -m benchmarks.child MODULE:FUNCTION JSON [CORE]`."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys

_LIFE = 300
"""Seconds after which it ends by itself, should the parent have been killed."""


def main() -> None:
    """Call the function."""
    signal.alarm(_LIFE)
    if sys.argv[3:]:
        os.sched_setaffinity(0, {int(sys.argv[3])})
    module, _, name = sys.argv[1].partition(":")
    getattr(importlib.import_module(f"benchmarks.{module}"), name)(**json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
