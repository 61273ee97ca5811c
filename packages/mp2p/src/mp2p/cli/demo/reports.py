"""What the demo's processes say to it: one JSON object a line on standard output."""

from __future__ import annotations

import sys
from typing import Any, Final, TypeAlias

from anyio.streams.memory import MemoryObjectReceiveStream

from mp2p.cli.output import dump

__all__ = ["REPLY", "Orders", "milliseconds", "report"]

REPLY: Final = "and this is my answer, sealed as well"
"""What the called node answers."""

Orders: TypeAlias = MemoryObjectReceiveStream[dict[str, Any]]
"""What the demo says to them, in the same form on their standard input."""


def report(event: str, **facts: object) -> None:
    """Tell the demo what happened."""
    sys.stdout.write(dump({"event": event} | facts) + "\n")
    sys.stdout.flush()


def milliseconds(seconds: float) -> float:
    """Convert for printing: to the microsecond."""
    return round(seconds * 1000, 3)
