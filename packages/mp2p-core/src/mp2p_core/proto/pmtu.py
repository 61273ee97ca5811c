"""How large a datagram the path carries: probing upward from 1200 bytes (RFC 8899; docs/protocol.md, section 6).

A probe is a packet of PING and PADDING. Losing one says something about its size and nothing about
congestion. Unauthenticated ICMP is not heeded: anybody could send it.
"""

from __future__ import annotations

import math
from typing import Final

from mp2p_core.proto.constants import BASE_DATAGRAM_SIZE

__all__ = ["PathMtu"]

_TRIES: Final = 3
"""Losses of probes of one size that show it to be too large (RFC 8899, MAX_PROBES)."""
_PRECISION: Final = 16
"""Bytes; a search that is closer than this has ended."""
_RAISE_AFTER: Final = 600.0
"""Seconds after which a larger size is tried again (RFC 8899, PMTU_RAISE_TIMER)."""
_BLACK_HOLE: Final = 3
"""Probe timeouts, or rounds of losing large datagrams, in a row, after which the size found is not believed."""


class PathMtu:
    """Searches between what is known to pass and what does not; the limit itself is tried first."""

    __slots__ = ("_again_at", "_ceiling", "_limit", "_losses", "_swallowed", "due_at", "size")

    def __init__(self, limit: int, now: float) -> None:
        self.size = BASE_DATAGRAM_SIZE
        """The largest datagram known to pass."""
        self._limit = limit
        self._ceiling = limit + 1
        self._losses = 0
        self._again_at = self.due_at = now if limit > BASE_DATAGRAM_SIZE else math.inf
        """When `probe` is worth a call; never while one is out."""
        self._swallowed = 0

    def probe(self, now: float, room: float) -> int | None:
        """Return the size to probe now, at most `room`, and count it as sent; None when there is none."""
        if now < self.due_at:
            return None
        size = self.wanted
        if not size:
            self._again_at = self.due_at = now + _RAISE_AFTER
            self._ceiling = self._limit + 1
            return None
        if size > room:
            return None
        self.due_at = math.inf
        return size

    @property
    def wanted(self) -> int:
        """The size to be probed next; 0 when the search has ended."""
        if self._ceiling > self._limit:
            return self._limit if self._limit > self.size else 0
        return (self.size + self._ceiling) // 2 if self._ceiling - self.size > _PRECISION else 0

    def passed(self, size: int) -> None:
        """Note that a probe arrived."""
        self.due_at = self._again_at
        self._losses = 0
        self._swallowed = 0
        self.size = max(self.size, size)

    def failed(self, size: int) -> None:
        """Note that a probe was lost."""
        self.due_at = self._again_at
        self._losses += 1
        if self._losses >= _TRIES:
            self._losses = 0
            self._ceiling = min(self._ceiling, size)

    def arrived(self) -> None:
        """Note that a datagram larger than the base arrived."""
        self._swallowed = 0

    def swallowed(self, now: float) -> bool:
        """Note a round in which datagrams larger than the base were lost; True when the size falls back.

        Smaller ones may well arrive meanwhile, so that no probe timeout ever shows it.
        """
        self._swallowed += 1
        return self._swallowed >= _BLACK_HOLE and self._fall_back(now)

    def timed_out(self, times: int, now: float) -> bool:
        """Note probe timeouts in a row; True when the size falls back."""
        return times >= _BLACK_HOLE and self._fall_back(now)

    def _fall_back(self, now: float) -> bool:
        """Go back to the base: the path may be another one now (RFC 8899, section 4.3)."""
        if self.size == BASE_DATAGRAM_SIZE:
            return False
        self.size = BASE_DATAGRAM_SIZE
        self._ceiling = self._limit + 1
        self._losses = 0
        self._swallowed = 0
        self._again_at = now + _RAISE_AFTER
        if self.due_at < math.inf:
            self.due_at = self._again_at
        return True
