"""Deadlines of many sessions in one heap, made for deadlines that mostly move later."""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar

__all__ = ["Timed", "Timers"]


class Timed(Protocol):
    """Something with a deadline."""

    queued_at: float | None
    """Where the heap last put it; owned by `Timers`."""

    def timeout(self) -> float | None:
        """Return when `handle_timeout` is due, or None."""


T = TypeVar("T", bound=Timed)


class Timers(Generic[T]):
    """Finds what is due without looking at what is not.

    An item whose deadline moved later stays where it is and is looked at once too often: the usual packet
    costs nothing here. One whose deadline moved earlier must be `schedule`d again.
    """

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._order = 0

    def schedule(self, item: T) -> None:
        """Note an item's deadline unless an earlier look at it is due anyway."""
        when = item.timeout()
        if when is None or (item.queued_at is not None and item.queued_at <= when):
            return
        item.queued_at = when
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, item))

    def next(self) -> float | None:
        """Return when `due` has to be called at the latest."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[T]:
        """Take out the items whose deadline has come, in its order."""
        found: list[T] = []
        while self._heap and self._heap[0][0] <= now:
            when, _, item = heapq.heappop(self._heap)
            if item.queued_at != when:
                continue  # an earlier entry for it was used since
            item.queued_at = None
            deadline = item.timeout()
            if deadline is not None and deadline <= now:
                found.append(item)
            else:
                self.schedule(item)
        return found
