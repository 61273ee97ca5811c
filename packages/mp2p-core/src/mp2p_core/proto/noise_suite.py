"""What a Noise handshake is made of: key pairs, ciphers and a hash, to be injected (protocol section 4).

Interface: `CHACHAPOLY_SHA256` is the product's `Suite`; `X25519KeyPair(private)` is a `KeyPair` as `Identity`
is one. A test builds its own `Suite` to count key exchanges, to record nonces, or for other ciphers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final, NoReturn, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

__all__ = ["CHACHAPOLY_SHA256", "Aead", "KeyPair", "Suite", "X25519KeyPair", "nonce_little_endian"]


class KeyPair(Protocol):
    """A Diffie-Hellman key pair. `Identity` is one."""

    @property
    def dh_public(self) -> bytes:
        """The public key, 32 bytes."""

    def exchange(self, peer_x25519_public: bytes, /) -> bytes:
        """Return the shared secret, 32 bytes. Raises ValueError rather than return zeros."""


class Aead(Protocol):
    """An AEAD keyed with 32 bytes, as those of `cryptography`."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """Return the ciphertext followed by a tag of 16 bytes."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """Return the plaintext. Raises `cryptography.exceptions.InvalidTag`."""


class X25519KeyPair:
    """An X25519 key pair from 32 private bytes."""

    __slots__ = ("_private", "dh_public")

    dh_public: bytes

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.dh_public = self._private.public_key().public_bytes_raw()

    def exchange(self, peer_x25519_public: bytes) -> bytes:
        """Return the shared secret. Raises ValueError when it would be zero."""
        return self._private.exchange(X25519PublicKey.from_public_bytes(peer_x25519_public))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key pair cannot be pickled: it would leave its secret behind")


nonce_little_endian: Final[Callable[[int], bytes]] = Struct("<4xQ").pack
"""Write a ChaChaPoly nonce: 32 zero bits, then n as 64 bits little-endian (Noise, section 12.3)."""


def _exchange(pair: KeyPair, public: bytes) -> bytes:
    return pair.exchange(public)


@dataclass(frozen=True, slots=True)
class Suite:
    """The functions that a handshake is made of.

    `name` is the last part of the protocol name; `hash_name` is the hash as `hashlib` and `hmac` call it.
    """

    name: str
    hash_name: str
    aead: Callable[[bytes], Aead]
    nonce: Callable[[int], bytes] = nonce_little_endian
    key_pair: Callable[[bytes], KeyPair] = X25519KeyPair
    dh: Callable[[KeyPair, bytes], bytes] = _exchange


CHACHAPOLY_SHA256: Final = Suite("25519_ChaChaPoly_SHA256", "sha256", ChaCha20Poly1305)
"""The product's suite. There is one cipher, so nothing is negotiated (section 4)."""
