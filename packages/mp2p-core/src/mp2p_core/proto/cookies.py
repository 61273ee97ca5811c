"""mac1, mac2 and the COOKIE (docs/protocol.md, section 4).

mac1 proves that the sender knows the receiver's public key, and nothing more: it keeps the noise of a
shared group away from the DH. mac2 proves that the sender receives at the address it sends from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from hmac import compare_digest
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.transport import Address, RandomBytes

__all__ = ["CookieJar", "keyed_hash", "mac1_for", "open_cookie_untrusted"]

_NONCE_ZERO: Final = bytes(12)
_COOKIE_SIZE: Final = 16


def keyed_hash(key: bytes, data: bytes, size: int) -> bytes:
    """Compute `B(k, d, n)` of the protocol: BLAKE2s keyed with `key`."""
    return hashlib.blake2s(data, key=key, digest_size=size).digest()


def mac1_for(receiver: bytes) -> Callable[[bytes], bytes]:
    """Return what makes mac1 for packets addressed to one public key."""
    key = hashlib.blake2s(c.LABEL_MAC1 + receiver).digest()
    keyed = hashlib.blake2s(key=key, digest_size=16).copy

    def mac1(data: bytes) -> bytes:
        state = keyed()  # copying it saves hashing the key block again
        state.update(data)
        return state.digest()

    return mac1


def _cookie_key(receiver: bytes, nonce: bytes) -> bytes:
    return keyed_hash(hashlib.blake2s(c.LABEL_COOKIE + receiver).digest(), nonce, 32)


def open_cookie_untrusted(cookie: wire.CookieHeader, receiver: bytes, mac1: bytes) -> bytes:
    """Open a COOKIE that answers the INIT with this mac1. Raises BadPacket.

    Whoever saw the INIT can forge one: the worst that a wrong cookie does is one wrong mac2.
    """
    try:
        return ChaCha20Poly1305(_cookie_key(receiver, cookie.nonce)).decrypt(_NONCE_ZERO, cookie.sealed, mac1)
    except InvalidTag:
        raise BadPacket("cookie-forged") from None


class CookieJar:
    """A responder's cookies: stateless towards initiators, a new secret every 120 s, the last one accepted."""

    __slots__ = ("_key", "_previous", "_random", "_secret", "_since")

    def __init__(self, key: bytes, random: RandomBytes, now: float) -> None:
        self._key = key
        self._random = random
        self._secret = random(32)
        self._previous: bytes | None = None
        self._since = now

    def _rotate(self, now: float) -> None:
        lives = (now - self._since) // c.COOKIE_SECRET_LIFE
        if lives >= 1:
            # Two lives on, even the previous secret is too old. Counted in whole lives, so that a secret made
            # before a quiet time does not outlive its second.
            self._previous = self._secret if lives < 2 else None
            self._secret = self._random(32)
            self._since += lives * c.COOKIE_SECRET_LIFE

    @staticmethod
    def _cookie(secret: bytes, source: Address, hint: Address | None) -> bytes:
        return keyed_hash(secret, source[4:20] + source[2:4] + (hint or wire.NO_ADDRESS), _COOKIE_SIZE)

    def seal(self, init: bytes, header: wire.InitHeader, source: Address, now: float) -> bytes:
        """Make the COOKIE that answers this INIT from this source."""
        self._rotate(now)
        nonce = self._random(16)
        cookie = self._cookie(self._secret, source, header.hint)
        sealed = ChaCha20Poly1305(_cookie_key(self._key, nonce)).encrypt(
            _NONCE_ZERO, cookie, init[wire.INIT_MAC1]
        )
        return wire.cookie_header(header.receive_id, nonce, sealed)

    def accepts(self, init: bytes, header: wire.InitHeader, source: Address, now: float) -> bool:
        """Check mac2 against the current and the previous secret."""
        mac2 = init[wire.INIT_MAC2]
        if mac2 == bytes(16):
            return False
        self._rotate(now)
        secrets = (self._secret,) if self._previous is None else (self._secret, self._previous)
        for secret in secrets:
            cookie = self._cookie(secret, source, header.hint)
            if compare_digest(keyed_hash(cookie, init[wire.INIT_BEFORE_MAC2], 16), mac2):
                return True
        return False
