"""How fast a publisher sends: what the worst subscriber can take, within limits (docs/protocol.md, section 8)."""

from __future__ import annotations

import math

from mp2p_core.proto import constants as c
from mp2p_core.proto.pacing import Pacer

__all__ = ["Allowance", "RateControl", "Traffic", "report_interval"]

_WAIT_TIME = 0.002
"""Seconds' worth of bytes that a wait is for: the fewer datagrams leave at once, the more signatures there are."""


class RateControl:
    """Bytes a second, less when subscribers report loss, more when nobody does and more is wanted."""

    __slots__ = ("_ceiling", "_limited", "_lossless", "_pacer", "_since", "_worst", "rate")

    def __init__(self, datagram: int, rate: float, now: float, ceiling: float = c.GROUP_RATE_MAX) -> None:
        self.rate = rate
        self._ceiling = ceiling
        self._pacer = Pacer(datagram, rate, 1.0, now)
        self._pacer.set_rate(rate, now)
        self._since = now
        self._worst = 0.0
        self._limited = False
        self._lossless = True  # so far

    def reported(self, loss: float, members: int, now: float) -> None:
        """Take a subscriber's share of datagrams lost; the worst of each span counts, once."""
        self._worst = max(self._worst, loss)
        self._lossless = self._lossless and not loss
        elapsed = now - self._since
        if elapsed < report_interval(members):
            return
        if self._worst > c.GROUP_LOSS_LIMIT:
            # Far too fast is made up for at once: what arrives is what it should be.
            share = min(c.GROUP_RATE_DECREASE, max(1 - self._worst, c.GROUP_RATE_FALL))
            self._set(max(self.rate * share, c.GROUP_RATE_MIN), now)
        elif self._limited:
            rise = c.GROUP_RATE_FIRST_RISE if self._lossless else c.GROUP_RATE_INCREASE**elapsed
            self._set(min(self.rate * rise, self._ceiling), now)
        self._since = now
        self._worst = 0.0
        self._limited = False

    def _set(self, rate: float, now: float) -> None:
        self.rate = rate
        self._pacer.set_rate(rate, now)

    def budget(self, now: float) -> float:
        """Return how many bytes may leave now."""
        level = self._pacer.budget(now)
        if level <= 0:
            self._limited = True
        return level

    def batch(self, now: float) -> float:
        """Return how many bytes a batch may take that leaves now: more than the budget, to be paid back."""
        return self._pacer.budget(now) + self.rate * _WAIT_TIME

    def sent(self, size: int) -> None:
        """Take bytes out; the last datagrams of a batch may overdraw."""
        self._pacer.sent(size)

    def ready_at(self) -> float:
        """Return when there is something to spend again."""
        return self._pacer.ready_at(_WAIT_TIME)


def report_interval(members: int) -> float:
    """Return how often a subscriber reports: ten reports a second from all of them, and one a second at most."""
    return max(c.REPORT_INTERVAL, members * c.REPORT_INTERVAL / 10)


class Traffic:
    """What a publisher has sent in all: one more subscriber to keep an account for costs nothing meanwhile."""

    __slots__ = ("data_at", "datagrams", "size")

    def __init__(self) -> None:
        self.datagrams = 0
        self.size = 0
        """Bytes; neither counts repairs."""
        self.data_at = -math.inf
        """When data was sent last, and not merely a heartbeat."""


class Allowance:
    """What repairs may cost: half of what the data does, and a trickle after it, so that its end is repaired too."""

    __slots__ = ("_at", "_level", "_size", "_steady", "_traffic")

    def __init__(self, traffic: Traffic, now: float, *, steady: bool = False) -> None:
        """Begin with what may be saved up; `steady` has the trickle also while data flows."""
        self._traffic = traffic
        self._steady = steady
        self._level = float(c.REPAIR_BURST)
        self._size = traffic.size
        self._at = now

    def take(self, size: int, now: float) -> bool:
        """Spend it on a datagram; False when it does not suffice yet."""
        traffic = self._traffic
        idle = now - self._idle_from()
        earned = (traffic.size - self._size) * c.REPAIR_SHARE + max(idle, 0.0) * c.REPAIR_TRICKLE
        self._level = min(self._level + earned, c.REPAIR_BURST)
        self._size = traffic.size
        self._at = now
        if self._level < size:
            return False
        self._level -= size
        return True

    def _idle_from(self) -> float:
        return self._at if self._steady else max(self._at, self._traffic.data_at + c.HEARTBEAT_FIRST)

    def ready_at(self, size: int) -> float:
        """Return when it will suffice, if no data is sent until then."""
        return self._idle_from() + max(size - self._level, 0.0) / c.REPAIR_TRICKLE + c.GRANULARITY
