"""How many datagrams a packet may span, by result (docs/protocol.md, section 7).

A large packet costs one seal and one system call, and is lost whole when any of its parts is. So packets
grow while they arrive, and shrink when more than one in nine does not: that many may be lost for what is saved.
That is also all there is to do about forged parts:
whether a packet was lost or spoiled, and by whom, the sender cannot tell, and need not: a path where large
packets do not arrive gets single datagrams, which nobody can spoil, and a larger one is tried the more seldom
the more often that failed. Loss and forgery cost speed, never correctness.
"""

from __future__ import annotations

import math
from typing import Final

from mp2p_core.proto.parts import MAX_PARTS, PART_HEADER_SIZE
from mp2p_core.proto.transmit import TRAIN_BYTES

__all__ = ["PacketSizer"]

_PATIENCE: Final = 8
"""How many more packets of the present size must arrive than losses outweigh before a larger one is tried, once any was
lost; doubles up to 128 each time that the size shrinks."""
_MAX_PATIENCE: Final = 128
_PRICE: Final = 8
"""Packets that must arrive to outweigh one that is lost: the size settles where one in nine is."""
_DEBT: Final = 48
"""What is outstanding when the size shrinks: six packets lost and none arrived."""


class PacketSizer:
    """The size of packets in datagrams: doubles on success, halves when too many are lost, and then waits longer."""

    __slots__ = ("_balance", "_patience", "_shrunk_at", "count", "lossy")

    def __init__(self) -> None:
        self.count = 1
        self.lossy = False
        """Whether any large packet was ever lost."""
        self._patience = 1
        self._balance = 0
        self._shrunk_at = -math.inf

    def limit(self, datagram: int) -> int:
        """Return how many datagrams of this size the next packet may span: what one train holds, at most."""
        self.count = max(1, min(self.count, TRAIN_BYTES // (datagram + PART_HEADER_SIZE)))
        return self.count

    def arrived(self, count: int, sent_at: float) -> None:
        """Note that a packet of that many datagrams was acknowledged. Much smaller ones than allowed say nothing."""
        if count * 2 <= self.count or sent_at <= self._shrunk_at:
            return
        self._balance += 1
        if self._balance >= self._patience:
            self.count = min(2 * self.count, MAX_PARTS)
            # Where packets were lost before, a larger size is on probation: half of the debt is there already.
            self._balance = 0 if self._patience == 1 else -_DEBT // 2

    def lost(self, count: int, sent_at: float, now: float) -> None:
        """Note that a packet of that many datagrams was lost. Single datagrams say nothing about size.

        Nor does what was sent before the last halving: one full queue must not halve the size six times.
        """
        if count < 2 or sent_at <= self._shrunk_at:
            return
        self.lossy = True
        self._patience = max(self._patience, _PATIENCE)
        self._balance -= _PRICE
        if self._balance > -_DEBT:
            return
        self._shrunk_at = now
        self.count = max(1, min(self.count, count) // 2)
        self._balance = 0
        self._patience = min(self._patience * 2, _MAX_PATIENCE)
