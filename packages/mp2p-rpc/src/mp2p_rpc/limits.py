"""How much a call may be, and how many there may be. Each number is against a peer that is allowed to call."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side takes from the other. Both sides check what they receive, before they allocate for it."""

    message: int = 1 << 20
    """Bytes of the arguments of a call together, of a result, or of one item of a stream. More is a stream."""
    depth: int = 32
    """Arrays and maps within each other."""
    elements: int = 1 << 17
    """Values in one message, keys included. An empty list takes one byte of a message and sixty of memory."""
    calls_per_peer: int = 100
    """Calls of one peer that are under way, waiting ones included. As many as it may have streams open."""
    running: int = 1024
    """Handlers of one `serve` that run at the same time, for all peers together."""
    waiting: int = 1024
    """Calls of one `serve` that wait for a handler to end; the next one is told `Busy`."""
