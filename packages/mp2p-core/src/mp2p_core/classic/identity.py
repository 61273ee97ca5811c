"""A key pair of the classic profile, which signs (protocol section 10)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mp2p_core.proto.identity import Identity

if TYPE_CHECKING:
    from mp2p_core.transport import RandomBytes

__all__ = ["ClassicIdentity"]


class ClassicIdentity:
    """A node's key pair in the classic profile.

    Not an `Identity`, so that no key gets from one protocol into the other by accident: version 1 uses its
    keys for Diffie-Hellman only, and this one signs. Shows its public key only, and cannot be pickled.
    """

    __slots__ = ("_signer", "public")

    def __init__(self, seed: bytes) -> None:
        """Build from the 32-byte Ed25519 seed (the secret). Raises `BadKey` when it has another length."""
        identity = Identity.from_seed(seed)
        self._signer = Ed25519PrivateKey.from_private_bytes(identity.seed())
        self.public = identity.public

    @classmethod
    def generate(cls, random: RandomBytes = os.urandom) -> Self:
        """Draw a fresh identity."""
        return cls(random(32))

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature, 64 bytes (RFC 8032)."""
        return self._signer.sign(message)

    def __repr__(self) -> str:
        return f"<ClassicIdentity {self.public}>"
