"""Acknowledgements, both ways: what to acknowledge and when, and what of ours was acknowledged.

RFC 9002 as docs/protocol.md section 6 takes it. Loss recovery and congestion control come with streams
and build on these two.
"""

from __future__ import annotations

from itertools import takewhile
from typing import NamedTuple

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import Ack, encode_ack
from mp2p_core.proto.ranges import RangeSet

__all__ = ["AckSender", "Acked", "SentLog"]


class AckSender:
    """Decides when to acknowledge: every second eliciting packet, at once on a gap or a PING, else in 25 ms."""

    __slots__ = ("_largest_at", "_pending", "_ranges", "deadline", "wanted")

    def __init__(self) -> None:
        self._ranges = RangeSet()
        self._pending = 0
        self._largest_at = 0.0
        self.wanted = False
        """Whether something eliciting has not been acknowledged yet, so that any packet should carry an ACK."""
        self.deadline: float | None = None

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
        if at_once or self._pending >= 2 or number != highest_before + 1:
            self.deadline = now
        elif self.deadline is None:
            self.deadline = now + c.MAX_ACK_DELAY

    def due(self, now: float) -> bool:
        """Tell whether an ACK has to go out now, alone if need be."""
        return self.deadline is not None and self.deadline <= now

    def frame(self, now: float) -> bytes:
        """Encode the ACK, and take it as sent."""
        self._pending = 0
        self.wanted = False
        self.deadline = None
        return encode_ack(self._ranges, now - self._largest_at)


class Acked(NamedTuple):
    """What one ACK frame told. `rtt` is a raw sample in seconds; the peer's delay is still in it."""

    rtt: float | None
    pings: tuple[tuple[int, float], ...]
    lost: int


class SentLog:
    """Eliciting packets that are still out."""

    __slots__ = ("_sent", "next_number")

    def __init__(self, first_number: int = 0) -> None:
        self.next_number = first_number
        # When, and with which pings. Bounded by MAX_SENT_RECORDS: a peer may never acknowledge.
        self._sent: dict[int, tuple[float, tuple[int, ...]]] = {}

    def sent(self, number: int, pings: tuple[int, ...], now: float) -> None:
        """Note an eliciting packet."""
        if len(self._sent) >= c.MAX_SENT_RECORDS:
            del self._sent[next(iter(self._sent))]
        self._sent[number] = now, pings

    def acked_untrusted(self, ack: Ack, now: float) -> Acked:
        """Read a peer's ACK. Raises BadPacket when it acknowledges what was never sent (row F9)."""
        largest = ack.ranges[0][1]
        if largest >= self.next_number:
            raise BadPacket("ack of a packet never sent")
        rtt: float | None = None
        pings: list[tuple[int, float]] = []
        lost = 0
        ranges = ack.ranges
        at = len(ranges) - 1
        # In rising order, and only as far as the ACK reaches: all but the last few of these leave the log
        # here, so that a packet full of ACKs costs no more than one ACK.
        for number in list(takewhile(largest.__ge__, self._sent)):
            while number > ranges[at][1]:
                at -= 1
            if number >= ranges[at][0]:
                at_time, with_pings = self._sent.pop(number)
                if number == largest:
                    rtt = now - at_time
                if with_pings:
                    pings.extend((ping, now - at_time) for ping in with_pings)
            elif number <= largest - c.LOSS_THRESHOLD:
                del self._sent[number]
                lost += 1
        return Acked(rtt, tuple(pings), lost)

    def __len__(self) -> int:
        return len(self._sent)
