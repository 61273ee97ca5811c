"""Datagrams that wait until a slow reader has room for what they bring."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from mp2p_core.proto.constants import BASE_DATAGRAM_SIZE, GROUP_WINDOW

if TYPE_CHECKING:
    from mp2p_core.transport import Train

__all__ = ["Held"]


class Held:
    """Trains in order, no more than a publisher can repair.

    Attack: a stranger's datagrams, as large as can be. No more bytes wait than a publisher keeps.
    """

    def __init__(self) -> None:
        self.size = 0
        """Datagrams that wait, about."""
        self._trains: deque[tuple[Train, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._trains)

    def add(self, train: Train) -> None:
        """Keep a train if there is room."""
        datagrams = train.datagrams()
        size = max(len(datagrams), sum(map(len, datagrams)) // BASE_DATAGRAM_SIZE)
        if self.size + size <= GROUP_WINDOW:
            self._trains.append((train, size))
            self.size += size

    def first(self, count: int) -> list[Train]:
        """Return the oldest ones."""
        return [train for train, _ in islice(self._trains, count)]

    def drop(self, count: int) -> None:
        """Forget the oldest ones."""
        for _ in range(count):
            self.size -= self._trains.popleft()[1]
