"""When the next bytes may leave: a bucket filled at the rate of the window (RFC 9002, section 7.7)."""

from __future__ import annotations

from typing import Final

__all__ = ["Pacer"]

_GAIN: Final = 1.25
"""Faster than the window by this much, so that pacing alone never limits."""
_BURST: Final = 10
"""Datagrams that may always leave at once: the initial window."""
_BURST_TIME: Final = 0.004
"""Seconds' worth of bytes that may leave at once: timers of an event loop are hardly finer than this."""
_WAIT_TIME: Final = 0.001
"""Seconds' worth of bytes that a wait is for, and at least a datagram: timers and packets cost by the piece."""
_SHORTEST_RTT: Final = 1e-6


class Pacer:
    """Spreads a window over a round trip, in bursts of four milliseconds or ten datagrams."""

    __slots__ = ("_at", "_datagram", "_level", "_rate", "burst")

    def __init__(self, datagram: int, window: float, rtt: float, now: float) -> None:
        self._datagram = datagram
        self.burst = self._level = float(_BURST * datagram)
        """Bytes that leave at once after a pause, and the most that one packet should overdraw."""
        self._rate = 0.0
        self._at = now
        self.update(window, rtt, now)

    def update(self, window: float, rtt: float, now: float) -> None:
        """Take the rate, from now on, from a window in bytes and a round trip in seconds."""
        self.set_rate(_GAIN * window / (rtt if rtt > _SHORTEST_RTT else _SHORTEST_RTT), now)

    def set_rate(self, rate: float, now: float) -> None:
        """Take the rate, from now on, in bytes a second."""
        self.budget(now)
        self._rate = rate
        few, much = _BURST * self._datagram, rate * _BURST_TIME
        self.burst = much if much > few else few

    def resize(self, datagram: int) -> None:
        """Take another size of datagrams."""
        self._datagram = datagram
        self.burst = max(_BURST * datagram, self._rate * _BURST_TIME)

    def budget(self, now: float) -> float:
        """Return how many bytes may leave now; not above zero while an overdraft is paid back."""
        if now > self._at:
            level = self._level + (now - self._at) * self._rate
            self._level = level if level < self.burst else self.burst
            self._at = now
        return self._level

    def sent(self, size: int) -> None:
        """Take bytes out. A packet may overdraw: packets are sent whole."""
        self._level -= size

    def ready_at(self, wait: float = _WAIT_TIME) -> float:
        """Return when to come back: when there is a budget worth a packet, or no later than now when there is any.

        `wait` is how many seconds' worth of bytes a wait is for.
        """
        if self._level > 0:
            return self._at
        return self._at + (max(self._datagram, self._rate * wait) - self._level) / self._rate
