"""What is in flight, what arrived, what is lost (RFC 9002; docs/protocol.md, section 6).

One packet-number space per connection. Says what happened; what to do about the content of a packet is
up to whoever put it there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c

if TYPE_CHECKING:
    from mp2p_core.proto.frames import Ack
    from mp2p_core.proto.rtt import RoundTrip

__all__ = ["AckResult", "Recovery", "SentPacket"]

_PERSISTENT: Final = 3
"""Probe timeouts without any arrival that make congestion persistent (RFC 9002, section 7.6)."""
_MAX_BACKOFF: Final = 10


class SentPacket:
    """An ack-eliciting packet that is out. `content` belongs to whoever filled it, and is not looked at here."""

    __slots__ = ("at", "content", "number", "order", "path_probe", "size")

    def __init__(self, number: int, at: float, size: int, content: Any, *, path_probe: bool = False) -> None:
        self.number = number
        self.at = at
        self.size = size
        self.content: Any = content
        self.path_probe = path_probe
        """Whether it probes the path MTU: losing it says nothing about congestion (RFC 9000, section 14.4)."""
        self.order = 0
        """Its place among all eliciting packets."""


@dataclass(slots=True)
class AckResult:
    """What an ACK or a timeout told: packets that arrived or were lost, in the order they were sent."""

    acked: Sequence[SentPacket]
    lost: Sequence[SentPacket]
    sampled: bool
    """Whether there is a new round-trip time."""
    persistent: bool
    """Whether the losses show persistent congestion."""


class Recovery:
    """Packets in flight, and the two timers that watch over them."""

    __slots__ = (
        "_asked", "_last_at", "_loss_at", "_order", "_out", "_probe_from", "_rtt", "_sampled_at", "_skipped",
        "backoff", "full", "in_flight", "largest_acked", "path_from",
    )  # fmt: skip

    def __init__(self, rtt: RoundTrip) -> None:
        self._rtt = rtt
        # Attack: a peer that never acknowledges. Data stops at the window, and pings and probes push out the
        # oldest above MAX_SENT_RECORDS.
        self._out: dict[int, SentPacket] = {}
        self.full = False
        """Whether there is no place for another packet, other than that of the oldest."""
        self._order = 0
        self._skipped: list[int] = []  # what was never sent, beyond what has been acknowledged
        self.largest_acked = -1
        """The highest number that the peer has acknowledged."""
        self.path_from = 0
        """The first number on the present path: lower ones say nothing about it."""
        self._loss_at = math.inf
        self._probe_from = self._last_at = 0.0
        self._asked = False
        self._sampled_at = -math.inf if rtt.sampled else math.inf
        self.in_flight = 0
        """Bytes on the present path."""
        self.backoff = 0
        """Probe timeouts in a row."""

    def __len__(self) -> int:
        return len(self._out)

    def sent(self, packet: SentPacket, *, asks: bool = False) -> SentPacket | None:
        """Note an eliciting packet; returns the oldest one when it had to make room and is to be taken for lost.

        `asks` tells whether the peer will acknowledge it at once: losing it shows the sooner.
        """
        pushed_out = None
        if self.full:
            pushed_out = self._take(next(iter(self._out)))
        if not self._out:
            # Only then: otherwise whoever sends more often than that, be it asking for a sign of life, never finds
            # out that nothing comes back.
            self._probe_from = packet.at
        self._last_at = packet.at
        self._order += 1
        packet.order = self._order
        self._out[packet.number] = packet
        self.full = len(self._out) >= c.MAX_SENT_RECORDS
        self.in_flight += packet.size
        self._asked = asks
        return pushed_out

    def _take(self, number: int) -> SentPacket:
        packet = self._out.pop(number)
        self.in_flight -= packet.size
        return packet

    def skip(self, number: int) -> None:
        """Note that no packet has this number."""
        self._skipped.append(number)

    def answered(self, now: float) -> None:
        """Count probe timeouts anew: the peer is there."""
        self.backoff = 0
        self._probe_from = now

    def moved(self, next_number: int, now: float) -> None:
        """Go on over another path: what is out on the old one fills none of its room (RFC 9000, section 9.4)."""
        for packet in self._out.values():
            packet.size = 0
        self.in_flight = 0
        self.answered(now)
        self.path_from = next_number
        self._sampled_at = math.inf

    def acked_untrusted(self, ack: Ack, next_number: int, now: float) -> AckResult:
        """Read a peer's ACK. Raises BadPacket when it acknowledges what was never sent (row F9).

        Attack: a peer that acknowledges what it has not received, and so has this side send ever faster to where
        nothing arrives (RFC 9000, section 21.4). It cannot know which numbers were left out.

        A packet that was taken for lost and arrives after all is not known any more: nothing happens.
        """
        ranges = ack.ranges
        largest = ranges[0][1]
        if largest >= next_number:
            raise BadPacket("ack of a packet never sent")
        while self._skipped and largest >= self._skipped[0]:
            number = self._skipped.pop(0)
            if any(low <= number <= high for low, high in ranges):
                raise BadPacket("ack of a packet never sent")
        self.largest_acked = max(self.largest_acked, largest)
        acked: list[SentPacket] = []
        out = self._out
        at = len(ranges) - 1
        # In rising order, and only as far as the ACK reaches: all but the last few of these leave here, so
        # that a packet full of ACKs costs no more than one ACK.
        for number in list(takewhile(largest.__ge__, out)):
            while number > ranges[at][1]:
                at -= 1
            if number >= ranges[at][0]:
                packet = out.pop(number)
                self.in_flight -= packet.size
                acked.append(packet)
        sampled = False
        if acked:
            self.full = False
            self.answered(self._last_at)
            if acked[-1].number == largest >= self.path_from:
                sampled = True
                if not self._rtt.sampled:
                    self._sampled_at = now
                self._rtt.add(now - acked[-1].at, ack.delay)
        lost = self._detect(now)
        return AckResult(acked, lost, sampled, bool(lost) and self._is_persistent(lost))

    def _detect(self, now: float) -> list[SentPacket]:
        """Take out what is lost by number or by time (RFC 9002, section 6.1)."""
        self._loss_at = math.inf
        if not self._out:
            return []
        delay = self._rtt.loss_delay
        lost: list[SentPacket] = []
        for packet in self._out.values():
            if packet.number > self.largest_acked:
                break
            due = packet.at + delay
            if packet.number <= self.largest_acked - c.LOSS_THRESHOLD or due <= now:
                lost.append(packet)
            elif self._loss_at == math.inf:
                self._loss_at = due
        for packet in lost:
            self._take(packet.number)
            self.full = False
        return lost

    def _is_persistent(self, lost: Sequence[SentPacket]) -> bool:
        """Tell whether a run of losses, with no arrival between them, spans three probe timeouts.

        Only packets sent after the first measured round trip count (RFC 9002, section 7.6.2).
        """
        span = _PERSISTENT * self._rtt.pto
        first: SentPacket | None = None
        previous = 0
        for packet in lost:
            if first is None or packet.order != previous + 1:
                first = None if packet.path_probe or packet.at <= self._sampled_at else packet
            elif not packet.path_probe and packet.at - first.at > span:
                return True
            previous = packet.order
        return False

    def timeout(self) -> float:
        """Return when `handle_timeout` is due; infinity while nothing is out."""
        if self._loss_at < math.inf or not self._out:
            return self._loss_at
        rtt = self._rtt
        if self.backoff:
            wait = rtt.pto * (1 << min(self.backoff, _MAX_BACKOFF))
        else:
            wait = rtt.pto_at_once if self._asked else rtt.pto
        return self._probe_from + (wait if wait < rtt.longest_wait else rtt.longest_wait)

    def handle_timeout(self, now: float) -> AckResult | None:
        """Return what time has shown to be lost; None means that a probe has to go out (a PTO)."""
        if self._loss_at < math.inf:
            lost = self._detect(now)
            return AckResult((), lost, sampled=False, persistent=self._is_persistent(lost))
        self.backoff += 1
        self._probe_from = now
        return None

    def oldest(self, count: int) -> list[SentPacket]:
        """Return the packets that have been out longest: what a probe repeats."""
        return list(islice(self._out.values(), count))
