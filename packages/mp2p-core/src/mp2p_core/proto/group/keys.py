"""Sender keys: epochs, and generations within an epoch (docs/protocol.md, section 8).

A generation's chain key gives its own message key and the next chain key, and not the one before it: whoever
comes later cannot read what was sent before.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.proto import constants as c

if TYPE_CHECKING:
    from mp2p_core.proto.noise_suite import Aead
    from mp2p_core.transport import RandomBytes

__all__ = [
    "ED25519_CHACHAPOLY",
    "GroupSuite",
    "ReceiveKeys",
    "SendKeys",
    "Verifier",
    "message_key",
    "next_chain_key",
    "topic_id",
]

CHANNEL_SIZE: Final = 8
_KEY_SIZE: Final = 32


class Verifier(Protocol):
    """Checks signatures of one key."""

    def __call__(self, signature: bytes, data: bytes, /) -> bool:
        """Tell whether the signature is that key's, over this data."""


def _verifier(key: bytes) -> Verifier:
    verify = Ed25519PublicKey.from_public_bytes(key).verify

    def check(signature: bytes, data: bytes) -> bool:
        try:
            verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return check


@dataclass(frozen=True, slots=True)
class GroupSuite:
    """The functions that a channel is made of, to be injected by tests."""

    aead: Callable[[bytes], Aead] = ChaCha20Poly1305
    verifier: Callable[[bytes], Verifier] = _verifier


ED25519_CHACHAPOLY: Final = GroupSuite()
"""The product's suite."""


def topic_id(publisher: bytes, name: str) -> bytes:
    """Return the 16 bytes that name a topic of the publisher with this Ed25519 key."""
    return hashlib.blake2s(c.LABEL_TOPIC + publisher + name.encode(), digest_size=16).digest()


def next_chain_key(chain_key: bytes) -> bytes:
    """Step a chain key forward by one generation."""
    return hmac.digest(chain_key, c.LABEL_GENERATION, "sha256")


def message_key(chain_key: bytes, channel: bytes, generation: int) -> bytes:
    """Return the key that seals datagrams of a generation."""
    return hmac.digest(chain_key, c.LABEL_GROUP_KEY + channel + generation.to_bytes(2, "big"), "sha256")


class SendKeys:
    """A publisher's keys for one epoch, drawn anew; never shown, and never stored."""

    __slots__ = ("_suite", "aead", "chain_key", "channel", "epoch", "generation", "sign", "signing_key")

    def __init__(
        self, epoch: int, random: RandomBytes = os.urandom, suite: GroupSuite = ED25519_CHACHAPOLY
    ) -> None:
        self._suite = suite
        self.epoch = epoch
        self.channel = random(CHANNEL_SIZE)
        private = Ed25519PrivateKey.from_private_bytes(random(_KEY_SIZE))
        self.sign: Callable[[bytes], bytes] = private.sign
        self.signing_key = private.public_key().public_bytes_raw()
        self.generation = 0
        self.chain_key = random(_KEY_SIZE)
        self.aead = suite.aead(message_key(self.chain_key, self.channel, 0))

    def step(self) -> None:
        """Begin the next generation: a newcomer who gets its chain key cannot read the ones before."""
        assert self.generation < c.MAX_GENERATION
        self.generation += 1
        self.chain_key = next_chain_key(self.chain_key)
        self.aead = self._suite.aead(message_key(self.chain_key, self.channel, self.generation))


class ReceiveKeys:
    """A subscriber's keys for one epoch, from the generation of its GRANT on.

    Attack: a datagram that names a far generation. An epoch has at most MAX_GENERATION steps, each is done
    once and kept, and none of them moves anything that a verified datagram depends on.
    """

    __slots__ = ("_aeads", "_chain", "_channel", "_first", "_suite")

    def __init__(
        self, channel: bytes, generation: int, chain_key: bytes, suite: GroupSuite = ED25519_CHACHAPOLY
    ) -> None:
        self._suite = suite
        self._channel = channel
        self._first = generation
        self._chain = [chain_key]
        self._aeads: dict[int, Aead] = {}

    def aead_untrusted(self, generation: int) -> Aead | None:
        """Return the cipher of a generation; None for one from before the GRANT, or that no epoch has."""
        aead = self._aeads.get(generation)
        if aead is not None:
            return aead
        if not self._first <= generation <= c.MAX_GENERATION:
            return None
        while len(self._chain) <= generation - self._first:
            self._chain.append(next_chain_key(self._chain[-1]))
        key = message_key(self._chain[generation - self._first], self._channel, generation)
        aead = self._aeads[generation] = self._suite.aead(key)
        return aead
