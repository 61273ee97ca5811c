"""What of an epoch has come, and in which order it goes on (docs/protocol.md, section 8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from mp2p_core.proto import constants as c

__all__ = ["Window"]

T = TypeVar("T")


class Window(Generic[T]):
    """Seqs from `base` on: taken, missing, or given up. Everything below `base` has been passed on, in order.

    Only verified seqs come here. Attack: a publisher that jumps. No more than GROUP_WINDOW seqs are told
    apart; a jump gives up what falls out below.
    """

    __slots__ = ("_taken", "base", "highest", "last")

    def __init__(self, first: int) -> None:
        self.base = first
        self.highest = first - 1
        """The highest that is known to have been sent."""
        self.last: int | None = None
        """The last one that there is, once known."""
        self._taken: dict[int, T | None] = {}  # None: given up

    @property
    def finished(self) -> bool:
        """Whether everything has been passed on that there will ever be."""
        return self.last is not None and self.base > self.last

    def is_new(self, seq: int) -> bool:
        """Tell whether this seq is still wanted."""
        return seq >= self.base and seq not in self._taken and (self.last is None or seq <= self.last)

    def in_order(self, seq: int) -> bool:
        """Take a seq if it is the one to pass on next and nothing waits behind it; the usual case."""
        if seq != self.base or self._taken:
            return False
        self.base = seq + 1
        self.highest = max(self.highest, seq)
        return True

    def skip(self, count: int) -> None:
        """Take so many seqs that are next, where nothing waits."""
        self.base += count
        self.highest = max(self.highest, self.base - 1)

    def extend(self, highest: int) -> range:
        """Learn that there are seqs up to this one; returns those that are new and have not come."""
        if self.last is not None:
            highest = min(highest, self.last)
        first = max(self.highest + 1, highest + 1 - c.GROUP_WINDOW)
        self.highest = max(self.highest, highest)
        return range(first, highest + 1)

    def take(self, seq: int, item: T) -> None:
        """Take a seq for which `is_new` was true, and that `extend` has been told of."""
        self._taken[seq] = item

    def give_up(self, seq: int) -> None:
        """Wait for this one no longer."""
        if self.is_new(seq) and seq <= self.highest:
            self._taken[seq] = None

    def passed(self) -> Iterator[T | None]:
        """Yield what is next in order, None for what was given up; once for a run of them that fell out."""
        floor = self.highest + 1 - c.GROUP_WINDOW
        taken = self._taken
        if self.base < floor:
            # In order as long as it lasts; what falls out is passed over in one piece.
            for seq in sorted(each for each in taken if each < floor):
                if seq > self.base:
                    yield None
                self.base = seq + 1
                yield taken.pop(seq)
            if self.base < floor:
                self.base = floor
                yield None
        while self.base in taken:
            item = taken.pop(self.base)
            self.base += 1
            yield item

    def rest(self) -> list[T]:
        """Return what has come and could not be passed on, lowest first."""
        return [item for _, item in sorted(self._taken.items(), key=lambda each: each[0]) if item is not None]

    def __len__(self) -> int:
        return len(self._taken)
