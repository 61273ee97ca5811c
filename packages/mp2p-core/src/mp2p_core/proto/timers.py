"""Deadlines of many sessions in one heap, made for deadlines that mostly move later."""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar

__all__ = ["Timed", "Timers"]


class Timed(Protocol):
    """Something with a deadline."""

    queued: list[float]
    """The times at which the heap has it, the next one last; owned by `Timers`."""

    def timeout(self) -> float | None:
        """Return when `handle_timeout` is due, or None."""


T = TypeVar("T", bound=Timed)


class Timers(Generic[T]):
    """Finds what is due without looking at what is not.

    An item whose deadline moved later stays where it is and is looked at once too often: the usual packet
    costs nothing here. One whose deadline moved earlier must be `schedule`d again.

    Attack: a peer whose packets move a deadline back and forth. An item's older, later places are used
    again rather than left behind, so that it holds a handful of places however often that happens.
    """

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._order = 0

    def schedule(self, item: T) -> None:
        """Note an item's deadline unless an earlier look at it is due anyway."""
        when = item.timeout()
        queued = item.queued
        if when is None or (queued and queued[-1] <= when):
            return
        queued.append(when)
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, item))

    def next(self) -> float | None:
        """Return when `due` has to be called at the latest."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[T]:
        """Take out the items whose deadline has come, in its order."""
        found: list[T] = []
        while self._heap and self._heap[0][0] <= now:
            item = heapq.heappop(self._heap)[2]
            item.queued.pop()
            deadline = item.timeout()
            if deadline is None or deadline > now:
                self.schedule(item)
            elif not (item.queued and item.queued[-1] <= now):  # else its next place brings it up
                found.append(item)
        return found

    def __len__(self) -> int:
        return len(self._heap)
