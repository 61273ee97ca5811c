"""The round-trip time of a path (RFC 9002, section 5; docs/protocol.md, section 6)."""

from __future__ import annotations

import math
from typing import Final

from mp2p_core.proto import constants as c

__all__ = ["RoundTrip"]

_RECENT: Final = 8
"""Samples whose smallest tells of a queue: a host that was busy delays some of them, a queue all."""

_LATE: Final = 0.00025
"""What even the fastest of them may be late by without a queue, of hosts that have little to do."""

_FASTER: Final = 4
"""How many times the latest sample the smoothed one may be, for pacing."""


class RoundTrip:
    """Round-trip times in seconds: the latest as measured, the smallest, the smoothed one and its variation."""

    __slots__ = (
        "_recent", "latest", "longest_wait", "loss_delay", "minimum", "paced", "pto", "pto_at_once", "sampled",
        "smoothed", "variation",
    )  # fmt: skip

    def __init__(self, sample: float | None) -> None:
        self.restart(sample)

    def restart(self, sample: float | None) -> None:
        """Begin anew, with a sample or a guess: the path is another one."""
        self.sampled = sample is not None
        """Whether any of this was measured; all else is the guess to begin with."""
        self.minimum = math.inf if sample is None else sample
        self.smoothed = self.latest = c.INITIAL_RTT if sample is None else sample
        self.variation = self.smoothed / 2
        self._recent: list[float] = []
        self._derive()

    def _derive(self) -> None:
        """Work out what timers go by: they are asked for several times between two samples."""
        late = 9 / 8 * (self.smoothed if self.smoothed > self.latest else self.latest)
        self.loss_delay = late if late > c.GRANULARITY else c.GRANULARITY
        """How long after a packet later ones may arrive before it is lost (RFC 9002, section 6.1.2)."""
        spread = 4 * self.variation
        self.pto_at_once = self.smoothed + (spread if spread > c.GRANULARITY else c.GRANULARITY)
        """Probe timeout for a packet that asks the peer to acknowledge at once."""
        self.pto = self.pto_at_once + c.MAX_ACK_DELAY
        """Probe timeout (RFC 9002, section 6.2.1), not doubled yet."""
        # One sample of a program that stood still for a while makes the smoothed time many times as long for dozens of
        # samples: paced by that, all that is sent meanwhile would trickle. A queue delays the latest one, too.
        soon = _FASTER * self.latest
        self.paced = soon if soon < self.smoothed else self.smoothed
        """What to spread a window over."""
        # It makes the next timeouts as long as well, and a peer that goes silent just then would be given up before
        # anybody had looked for it. A path is only as slow as its fastest round trip.
        longest = 3 * self.minimum
        self.longest_wait = longest if self.sampled and longest > c.PROBE_WAIT else c.PROBE_WAIT
        """The longest probe timeout, doubled or not."""

    def add(self, sample: float, ack_delay: float) -> None:
        """Take a sample; the first one replaces the guess.

        `ack_delay` is the peer's word: it counts up to MAX_ACK_DELAY, and never below the fastest round
        trip, so that no peer can talk the time down to zero and with it the spacing of CLOSE.
        """
        self.latest = sample
        self.minimum = min(self.minimum, sample)
        ack_delay = ack_delay if ack_delay < c.MAX_ACK_DELAY else c.MAX_ACK_DELAY
        if sample >= self.minimum + ack_delay:
            sample -= ack_delay
        self._recent.append(sample)
        del self._recent[:-_RECENT]
        if not self.sampled:
            self.sampled = True
            self.smoothed, self.variation = sample, sample / 2
        else:
            self.variation += (abs(self.smoothed - sample) - self.variation) / 4
            self.smoothed += (sample - self.smoothed) / 8
        self._derive()

    def forget_minimum(self) -> None:
        """Take the latest sample for the smallest: the path may be another one (RFC 9002, section 5.2)."""
        self.minimum = self.latest
        self._derive()

    @property
    def _wait(self) -> float:
        """How long even the fastest of the last packets waited on the way; for ever as long as nothing is known."""
        return min(self._recent) - self.minimum if self._recent else math.inf

    @property
    def queued(self) -> bool:
        """Whether even the fastest of the last packets waited on the way, for longer than hosts are late."""
        return self._wait > c.GRANULARITY

    @property
    def crowded(self) -> bool:
        """Whether they may have waited in a short queue: also whenever `queued`, and while hosts are late."""
        return self._wait > min(max(self.minimum / 4, _LATE), c.GRANULARITY)
