"""What the demo's two sides both know."""

from __future__ import annotations

from typing import Final

__all__ = ["REPLY", "milliseconds"]

REPLY: Final = "and this is my answer, sealed as well"
"""What the called node answers."""


def milliseconds(seconds: float) -> float:
    """Convert for printing: to the microsecond."""
    return round(seconds * 1000, 3)
