"""Token buckets: one, and a bounded table of them keyed by whatever a stranger controls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from functools import cache
from typing import Self

from mp2p_core.proto.constants import BUCKET_TABLE_SIZE

__all__ = ["BucketTable", "TokenBucket"]


@cache  # of the few limits that there are
def _split(limit: float) -> tuple[float, float]:
    """Divide a limit per second into rate and burst: what is saved up and what is earned in a second."""
    burst = max(limit / 4, 1.0)
    return limit - burst, burst


class TokenBucket:
    """`rate` tokens a second up to `burst`. Starts full. Time is an argument and may stand still."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    @classmethod
    def at_most(cls, limit: float, now: float) -> Self:
        """Return a bucket that gives no more than `limit` tokens within any second, the first one included."""
        return cls(*_split(limit), now)

    def level(self, now: float) -> float:
        """Return the tokens there are now."""
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
        return self._level

    def take(self, now: float, count: int = 1) -> bool:
        """Take one token, or so many; False when there are fewer."""
        if self.level(now) < count:
            return False
        self._level -= count
        return True


class BucketTable:
    """A bucket per key.

    Attack: spoofed sources fill the table. It is bounded and drops the least recently used bucket, so
    that flooding costs an attacker's victims at most a fresh (full) bucket; a global bucket always stands
    behind this one.
    """

    __slots__ = ("_buckets", "_burst", "_rate", "_size")

    def __init__(self, rate: float, burst: float, size: int = BUCKET_TABLE_SIZE) -> None:
        self._rate = rate
        self._burst = burst
        self._size = size
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    @classmethod
    def at_most(cls, limit: float) -> Self:
        """Return a table whose buckets give no more than `limit` tokens within any second."""
        return cls(*_split(limit))

    def take(self, key: Hashable, now: float, count: int = 1) -> bool:
        """Take one token, or so many, from the bucket of `key`."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._size:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now, count)

    def __len__(self) -> int:
        return len(self._buckets)
