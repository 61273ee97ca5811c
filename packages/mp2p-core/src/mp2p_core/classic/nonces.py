"""The nonces that were used under one key, by either side (protocol section 10).

Both sides of a classic session use one key and draw nonces at random. So a nonce that comes in must not be
one that came before (a replay), and not one of ours (a reflection); and one that goes out must be neither.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NonceMemory"]

_SIZE: Final = 12
_PER_BUCKET: Final = 128


class NonceMemory:
    """A set of nonces that takes about 15 bytes for each, where Python's takes a hundred.

    Linear hashing: the nonces of a bucket stand one after the other, and whenever there are too many of them
    for the buckets there are, the next bucket in turn is split in two. So it grows in steps that nobody
    waits for.

    Attack: a peer that chooses nonces which fall into one bucket. Python's hash of bytes has a secret of
    the process in it, so there is no choosing. The owner bounds how many there are.
    """

    __slots__ = ("_buckets", "_count", "_level")

    def __init__(self) -> None:
        self._buckets = [bytearray()]
        self._level = 1
        """A power of two. So many buckets there were when the present round of splits began."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, nonce: bytes) -> bool:
        bucket = self._buckets[self._place(nonce)]
        at = bucket.find(nonce)
        while at > 0 and (inside := at % _SIZE):  # the end of one and the beginning of another
            at = bucket.find(nonce, at - inside + _SIZE)
        return at >= 0

    def add(self, nonce: bytes) -> None:
        """Remember a nonce of 12 bytes that is not there yet."""
        self._buckets[self._place(nonce)] += nonce
        self._count += 1
        if self._count > len(self._buckets) * _PER_BUCKET:
            self._split()

    def _place(self, nonce: bytes) -> int:
        place = hash(nonce) % (2 * self._level)
        return place if place < len(self._buckets) else place - self._level

    def _split(self) -> None:
        """Share the nonces of the next bucket in turn with a new one, which is `_level` further."""
        place = len(self._buckets) - self._level
        shared, self._buckets[place] = self._buckets[place], bytearray()
        self._buckets.append(bytearray())
        for at in range(0, len(shared), _SIZE):
            nonce = bytes(shared[at : at + _SIZE])
            self._buckets[self._place(nonce)] += nonce
        if len(self._buckets) == 2 * self._level:
            self._level *= 2
