"""A bounded set of packet numbers, kept as ranges: what ACK frames are made of."""

from __future__ import annotations

from collections.abc import Iterator

from mp2p_core.proto.constants import MAX_ACK_RANGES, REPLAY_WINDOW

__all__ = ["RangeSet"]


class RangeSet:
    """Packet numbers as inclusive ranges, highest first.

    Attack: a peer sends every second number to make this grow. At most one range more than an ACK frame
    carries is kept; the lowest is forgotten, and the replay window still refuses its numbers.

    So are ranges that a new one leaves behind the replay window: the peer has long taken what is missing there for
    lost, and every ACK would say them again.
    """

    __slots__ = ("falling",)

    def __init__(self) -> None:
        self.falling: list[tuple[int, int]] = []
        """(low, high), highest first, never touching. Not to be changed by others."""

    def add(self, number: int) -> None:
        """Take one number."""
        ranges = self.falling
        if ranges and number == ranges[0][1] + 1:  # in order: by far the most frequent case
            ranges[0] = (ranges[0][0], number)
            return
        for i, (low, high) in enumerate(ranges):
            if number > high + 1:
                ranges.insert(i, (number, number))
                while ranges[-1][1] < ranges[0][1] - REPLAY_WINDOW:
                    ranges.pop()
                break
            if number == high + 1:
                ranges[i] = (low, number)
                self._join(i)
                return
            if number >= low:
                return
            if number == low - 1:
                ranges[i] = (number, high)
                self._join(i + 1)
                return
        else:
            ranges.append((number, number))
        if len(ranges) > MAX_ACK_RANGES + 1:
            ranges.pop()

    def _join(self, i: int) -> None:
        """Merge range `i` into the one above it where they touch."""
        ranges = self.falling
        if 0 < i < len(ranges) and ranges[i][1] + 1 == ranges[i - 1][0]:
            ranges[i - 1 : i + 1] = [(ranges[i][0], ranges[i - 1][1])]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (low, high), highest first."""
        return iter(self.falling)

    def __len__(self) -> int:
        return len(self.falling)

    def __bool__(self) -> bool:
        return bool(self.falling)
