"""A virtual clock: time moves only when something is due."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["VirtualClock"]


class VirtualClock:
    """Runs callbacks in the order of their time; ties run in the order they were asked for."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Run a callback at that time, or at once when it has passed."""
        self._order += 1
        heapq.heappush(self._heap, (max(when, self.now), self._order, callback))

    def step(self, until: float) -> bool:
        """Run what is due next, no later than `until`; False when nothing was."""
        if not self._heap or self._heap[0][0] > until:
            self.now = max(self.now, until)
            return False
        self.now, _, callback = heapq.heappop(self._heap)
        callback()
        return True
