"""When a publisher says what there is: heartbeats (docs/protocol.md, section 8)."""

from __future__ import annotations

import math

from mp2p_core.proto import constants as c

__all__ = ["Pulse"]


class Pulse:
    """Heartbeats soon after data, ever less often while there is none, and now and then while it flows."""

    __slots__ = ("_latest", "_wait", "due")

    def __init__(self) -> None:
        self._wait = c.HEARTBEAT_FIRST
        self._latest = math.inf
        self.due = math.inf
        """When the next heartbeat goes out."""

    def data(self, now: float) -> None:
        """Learn that data has gone out: its end may have been lost."""
        self._wait = c.HEARTBEAT_FIRST
        self.due = min(now + self._wait, self._latest)

    def joined(self, now: float) -> None:
        """Learn that somebody has joined, and is to say soon that it hears, and to learn how many members there are."""
        self._wait = c.JOIN_SPACING
        self._latest = min(self._latest, now + self._wait)
        self.due = min(self.due, now + self._wait)

    def sent(self, now: float) -> None:
        """Learn that a heartbeat has gone out."""
        self._wait = min(2 * self._wait, c.HEARTBEAT_LAST)
        self._latest = now + c.HEARTBEAT_LAST
        self.due = now + self._wait
