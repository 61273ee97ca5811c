"""Identities: an Ed25519 key pair whose public half is the node's name (protocol section 2).

Interface: `PublicKey(raw)`, `PublicKey.parse(text)`, `PublicKey.read_untrusted(raw)`, with `.raw` and
`.x25519`; `Identity.generate(random)`, `Identity.from_seed(seed)`, with `.public`, `.seed()`, and the
`dh_public` and `exchange` of a `noise_suite.KeyPair`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mp2p_core.errors import BadKey, BadPacket
from mp2p_core.proto.edwards import check_public_key

if TYPE_CHECKING:
    from mp2p_core.transport import RandomBytes

__all__ = ["Identity", "PublicKey"]

KEY_SIZE: Final = 32

# Bounded: in open mode strangers choose which keys are checked here. One who sends a new key each time
# displaces the keys of friends, each of which then costs one more check (60 us) and nothing else.
_CHECKED_KEYS: Final = 4096

_BASE32: Final = re.compile(r"[a-z2-7]{52}", re.ASCII)
_DIGITS: Final = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghijklmnopqrstuv")
"""From base32 (RFC 4648) to digits of `int`: decoding is one step of it, and several of Python in base64."""
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)

_check_cached = functools.lru_cache(maxsize=_CHECKED_KEYS)(check_public_key)


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """The public half of an identity: 32 bytes of Ed25519, which name a node.

    Equal exactly when the 32 bytes are. Making one checks the key, once for each key while the cache of
    checked keys holds it, and raises `BadKey` with the reason (section 2). `x25519` is the same point for
    Diffie-Hellman; a key and its negative share it, so never use it as a name.
    """

    raw: bytes
    x25519: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        # A copy of mutable input: the key that was checked is the key that stays.
        object.__setattr__(self, "raw", bytes(self.raw))
        object.__setattr__(self, "x25519", _check_cached(self.raw))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key from 52 characters of lower-case base32 without padding, or from 64 hex digits.

        Raises `BadKey`, with the form expected or with the check of the key that failed.
        """
        if _HEX.fullmatch(text):
            return cls(bytes.fromhex(text))
        if not _BASE32.fullmatch(text):
            raise BadKey(
                f"not a public key ({len(text)} characters): copy the whole key again, 52 characters of "
                "lower-case base32 (a to z, 2 to 7) or 64 hex digits"
            )
        number = int(text.translate(_DIGITS), 32)
        if number & 0xF:  # 52 characters hold 4 bits more
            raise BadKey(
                "not a canonical public key: its last character holds more than 32 bytes do. Copy it again"
            )
        return cls((number >> 4).to_bytes(KEY_SIZE))

    @classmethod
    def read_untrusted(cls, raw: bytes) -> Self:
        """Take a key that a stranger sent. Raises `BadPacket` only."""
        try:
            return cls(raw)
        except BadKey as error:
            raise BadPacket(str(error)) from None

    def __str__(self) -> str:
        """Write the key as 52 characters of lower-case base32."""
        return _to_base32(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey.parse('{self}')"


def _own_key(raw: bytes, x25519: bytes) -> PublicKey:
    """Make the key of an identity. Both forms were computed from its seed, so there is nothing to check."""
    key = object.__new__(PublicKey)
    object.__setattr__(key, "raw", raw)
    object.__setattr__(key, "x25519", x25519)
    return key


def _to_base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode("ascii").rstrip("=").lower()


class Identity:
    """A node's key pair. It shows its public key only: not its secret in repr, and it cannot be pickled.

    In version 1 the key is used for Diffie-Hellman only (section 2): an identity is a
    `noise_suite.KeyPair`, to be passed to a handshake as its static key.
    """

    __slots__ = ("_seed", "_x25519", "dh_public", "public")

    public: PublicKey
    """The node's name."""
    dh_public: bytes
    """The same key for X25519, as 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        """Build from the 32-byte Ed25519 seed (the secret). Raises `BadKey` when it has another length."""
        size = len(seed)
        if size != KEY_SIZE:
            del seed  # what was passed by mistake may still be a secret, and reports may show local variables
            raise BadKey(f"a private seed has {KEY_SIZE} bytes, and this has {size}: pass the seed alone")
        self._seed = bytes(seed)
        # X25519 clamps by itself (RFC 7748, section 5); this is the scalar that RFC 8032 derives.
        self._x25519 = X25519PrivateKey.from_private_bytes(hashlib.sha512(self._seed).digest()[:KEY_SIZE])
        self.dh_public = self._x25519.public_key().public_bytes_raw()
        raw = Ed25519PrivateKey.from_private_bytes(self._seed).public_key().public_bytes_raw()
        self.public = _own_key(raw, self.dh_public)

    @classmethod
    def generate(cls, random: RandomBytes = os.urandom) -> Self:
        """Draw a fresh identity."""
        return cls(random(KEY_SIZE))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Build the identity of a 32-byte Ed25519 seed. Raises `BadKey` when it has another length."""
        return cls(seed)

    def seed(self) -> bytes:
        """Return the secret, to be written to a key file and nowhere else."""
        return self._seed

    def exchange(self, peer_x25519_public: bytes) -> bytes:
        """Return the 32-byte X25519 secret shared with that key.

        Raises `BadKey` when the key has another length or small order, so that the result would be zero.
        """
        try:
            return self._x25519.exchange(X25519PublicKey.from_public_bytes(peer_x25519_public))
        except ValueError:
            raise BadKey(
                "no secret can be shared with this X25519 key: its length or its order is wrong"
            ) from None

    def __repr__(self) -> str:
        # A report of an error in __init__ shows what is not complete yet.
        return f"<Identity {getattr(self, 'public', 'without a key')}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an identity cannot be pickled or copied: it would leave its secret behind. Save a key file"
        )
