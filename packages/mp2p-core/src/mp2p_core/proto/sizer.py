"""How many datagrams a packet may span, by result (docs/protocol.md, section 7).

A large packet costs one seal and one system call, and is lost whole when any of its parts is. So packets
grow while they arrive and shrink as soon as one does not. That is also all there is to do about forged parts:
whether a packet was lost or spoiled, and by whom, the sender cannot tell, and need not: a path where large
packets do not arrive gets single datagrams, which nobody can spoil, and a larger one is tried the more seldom
the more often that failed. Loss and forgery cost speed, never correctness.
"""

from __future__ import annotations

import math
from typing import Final

from mp2p_core.proto.parts import MAX_PARTS, PART_HEADER_SIZE

__all__ = ["PacketSizer"]

_TRAIN_BYTES: Final = 65000
"""A train goes out in one system call, which takes at most 65507 bytes."""
_PATIENCE: Final = 8
"""Packets of the present size that must arrive after a loss before a larger one is tried; doubles up to 128."""
_MAX_PATIENCE: Final = 128


class PacketSizer:
    """The size of packets in datagrams: doubles on success, halves on loss, and then waits longer."""

    __slots__ = ("_arrived", "_patience", "_shrunk_at", "count")

    def __init__(self) -> None:
        self.count = 1
        self._patience = 1
        self._arrived = 0
        self._shrunk_at = -math.inf

    def limit(self, datagram: int) -> int:
        """Return how many datagrams of this size the next packet may span: what one train holds, at most."""
        self.count = max(1, min(self.count, _TRAIN_BYTES // (datagram + PART_HEADER_SIZE)))
        return self.count

    def arrived(self, count: int) -> None:
        """Note that a packet of that many datagrams was acknowledged. Much smaller ones than allowed say nothing."""
        if count * 2 <= self.count or self.count >= MAX_PARTS:
            return
        self._arrived += 1
        if self._arrived >= self._patience:
            self.count = min(2 * self.count, MAX_PARTS)
            self._arrived = 0

    def lost(self, count: int, sent_at: float, now: float) -> None:
        """Note that a packet of that many datagrams was lost. Single datagrams say nothing about size.

        Nor does what was sent before the last halving: one full queue must not halve the size six times.
        """
        if count < 2 or sent_at <= self._shrunk_at:
            return
        self._shrunk_at = now
        self.count = max(1, min(self.count, count) // 2)
        self._arrived = 0
        self._patience = min(max(self._patience * 2, _PATIENCE), _MAX_PATIENCE)
