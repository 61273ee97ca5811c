"""The nonces that were used under one key, by either side (protocol section 10).

Both sides of a classic session use one key and draw nonces at random. So a nonce that comes in must not be
one that came before (a replay), and not one of ours (a reflection); and one that goes out must be neither.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NonceMemory"]

_SIZE: Final = 12
_BUCKETS: Final = 256


class NonceMemory:
    """A set of nonces that takes 12 to 14 bytes for each.

    Attack: a peer that chooses nonces which fall into one bucket. Python's hash of bytes has a secret of
    the process in it, so there is no choosing. The owner bounds how many there are.
    """

    __slots__ = ("_buckets", "_count")

    def __init__(self) -> None:
        self._buckets: dict[int, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, nonce: bytes) -> bool:
        bucket = self._buckets.get(hash(nonce) % _BUCKETS, b"")
        at = bucket.find(nonce)
        while at > 0 and (inside := at % _SIZE):  # the end of one and the beginning of another
            at = bucket.find(nonce, at - inside + _SIZE)
        return at >= 0

    def add(self, nonce: bytes) -> None:
        """Remember a nonce of 12 bytes that is not there yet."""
        self._buckets.setdefault(hash(nonce) % _BUCKETS, bytearray()).extend(nonce)
        self._count += 1
