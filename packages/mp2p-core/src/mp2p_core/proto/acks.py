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
    is full, asks by PING.
    """

    __slots__ = ("_largest_at", "_pending", "_ranges", "deadline", "wanted")

    def __init__(self) -> None:
        self._ranges = RangeSet()
        self._pending = 0
        self._largest_at = 0.0
        self.wanted = False
        """Whether something eliciting has not been acknowledged yet, so that any packet should carry an ACK."""
        self.deadline = math.inf
        """When an ACK has to go out, alone if need be."""

    def received(
        self, number: int, *, highest_before: int, eliciting: bool, at_once: bool, now: float
    ) -> None:
        """Note an authenticated packet; `highest_before` is the highest number before this one."""
        self._ranges.add(number)
        if number > highest_before:
            self._largest_at = now
        if not eliciting:
            return
        self.wanted = True
        self._pending += 1
        if at_once or self._pending >= c.ACK_EVERY or number != highest_before + 1:
            self.deadline = now
        elif self.deadline == math.inf:
            self.deadline = now + c.MAX_ACK_DELAY

    def again(self) -> None:
        """Have the next packet carry an ACK: the last one may have gone where nothing arrives."""
        self.wanted = len(self._ranges) > 0

    def frame(self, now: float) -> bytes:
        """Encode the ACK, and take it as sent."""
        self._pending = 0
        self.wanted = False
        self.deadline = math.inf
        return encode_ack(self._ranges.falling, now - self._largest_at)
