"""What to acknowledge, and when (docs/protocol.md, section 6). What of ours was acknowledged is `recovery`'s."""

from __future__ import annotations

import math

from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import encode_ack
from mp2p_core.proto.ranges import RangeSet

__all__ = ["AckSender"]


class AckSender:
    """Decides when to acknowledge: every sixteenth eliciting packet, at once on a gap or a PING, else in 25 ms.

    An ACK costs both sides about what a packet of data does. A sender that needs one earlier, because its window
    is full, asks by PING. What goes out for another reason carries one along, but not each of many small packets that
    go to and fro: one in 2 ms, or for each datagram's worth.
    """

    __slots__ = ("_bytes", "_largest_at", "_pending", "_ranges", "_said_at", "deadline", "wanted")

    def __init__(self) -> None:
        self._ranges = RangeSet()
        self._pending = self._bytes = 0  # eliciting packets that were not acknowledged, and what they brought
        self._largest_at = 0.0
        self._said_at = -math.inf
        self.wanted = False
        """Whether there is something to acknowledge."""
        self.deadline = math.inf
        """When an ACK has to go out, alone if need be."""

    def received(
        self, number: int, size: int, *, highest_before: int, eliciting: bool, at_once: bool, now: float
    ) -> None:
        """Note an authenticated packet of so many bytes; `highest_before` is the highest number before this one."""
        self._ranges.add(number)
        if number > highest_before:
            self._largest_at = now
        if not eliciting:
            return
        self.wanted = True
        self._pending += 1
        self._bytes += size
        if at_once or self._pending >= c.ACK_EVERY or number != highest_before + 1:
            self.deadline = now
        elif self.deadline == math.inf:
            self.deadline = now + c.MAX_ACK_DELAY

    def again(self) -> None:
        """Have the next packet carry an ACK: the last one may have gone where nothing arrives."""
        self.wanted = len(self._ranges) > 0
        self._said_at = -math.inf

    def rides(self, now: float) -> bool:
        """Tell whether a packet that goes out now, for whatever reason, is to carry an ACK."""
        return self.wanted and (
            now >= self._said_at + c.GRANULARITY
            or self._bytes >= c.BASE_DATAGRAM_SIZE
            or self.deadline <= now
        )

    def frame(self, now: float) -> bytes:
        """Encode the ACK, and take it as sent."""
        self._pending = self._bytes = 0
        self._said_at = now
        self.wanted = False
        self.deadline = math.inf
        return encode_ack(self._ranges.falling, now - self._largest_at)
