"""The three messages of the original implementation, to the byte (protocol section 10).

`parse_message(datagram)` reads any of them, `bytes(message)` writes it. What a stranger sent raises only
`BadPacket`, whose text is the counter to raise.

AddressDeclaration, 115 bytes: where the sender listens
     0  1 type 0
     1  2 port
     3 16 IPv6 address; IPv4 as ::ffff:a.b.c.d
    19 32 src: the sender's Ed25519 key
    51 64 signature over all before it

SessionInitiation, 177 bytes: the client's request, and the server's answer
     0  1 type 1
     1 16 session id
    17 32 src
    49 32 dst: the receiver's Ed25519 key
    81 32 X25519 public key
   113 64 signature over all before it

SessionData, 45 bytes and more; its AES-256-GCM key is what X25519 gives for the two keys exchanged
     0  1 type 2
     1 16 session id
    17 12 nonce, random
    29  n ciphertext, without associated data
     . 16 tag
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mp2p_core.classic import constants as c
from mp2p_core.classic.identity import ClassicIdentity
from mp2p_core.errors import BadPacket
from mp2p_core.proto.addresses import IPV4, IPV6
from mp2p_core.proto.identity import PublicKey
from mp2p_core.transport import Address

__all__ = [
    "ClassicAddressDeclaration",
    "ClassicMessage",
    "ClassicSessionData",
    "ClassicSessionInitiation",
    "parse_message",
]

_SIGNATURE_SIZE: Final = 64
_MAPPED: Final = bytes(10) + b"\xff\xff"
_DECLARATION_LEAD: Final = bytes([c.TYPE_ADDRESS_DECLARATION])
_INITIATION_LEAD: Final = bytes([c.TYPE_SESSION_INITIATION])
_DATA_LEAD: Final = bytes([c.TYPE_SESSION_DATA])


def _signer_untrusted(src: bytes, signed: bytes, signature: bytes) -> PublicKey:
    """Check a signature and the key that made it: one of small order has signatures that fit any message."""
    try:
        key = PublicKey.read_untrusted(src)
        Ed25519PublicKey.from_public_bytes(src).verify(signature, signed)
    except (BadPacket, InvalidSignature):
        raise BadPacket("classic-signature") from None
    return key


@dataclass(frozen=True, slots=True)
class ClassicAddressDeclaration:
    """Says where its sender listens. `address` is an address record (section 3) of kind 4 or 6."""

    address: Address
    src: bytes
    signature: bytes

    @classmethod
    def make(cls, identity: ClassicIdentity, address: Address) -> Self:
        """Sign a declaration."""
        src = identity.public.raw
        return cls(address, src, identity.sign(_DECLARATION_LEAD + address[2:] + src))

    def __bytes__(self) -> bytes:
        """Write the message, 115 bytes."""
        return self._signed() + self.signature

    def _signed(self) -> bytes:
        return _DECLARATION_LEAD + self.address[2:] + self.src

    def validate(self) -> PublicKey:
        """Return the sender's key once the signature has proved it; raises `BadPacket`.

        Says nothing of whether the address is one to send to.
        """
        return _signer_untrusted(self.src, self._signed(), self.signature)


@dataclass(frozen=True, slots=True)
class ClassicSessionInitiation:
    """One half of a key exchange. `session_id` has 16 bytes; `public` is a fresh X25519 key."""

    session_id: bytes
    src: bytes
    dst: bytes
    public: bytes
    signature: bytes

    @classmethod
    def make(cls, identity: ClassicIdentity, session_id: bytes, dst: PublicKey, public: bytes) -> Self:
        """Sign an initiation, or the answer to one."""
        src = identity.public.raw
        signed = _INITIATION_LEAD + session_id + src + dst.raw + public
        return cls(session_id, src, dst.raw, public, identity.sign(signed))

    def __bytes__(self) -> bytes:
        """Write the message, 177 bytes."""
        return self._signed() + self.signature

    def _signed(self) -> bytes:
        return _INITIATION_LEAD + self.session_id + self.src + self.dst + self.public

    def validate(self) -> PublicKey:
        """Return the sender's key once the signature has proved it; raises `BadPacket`.

        Says nothing of whom it is for, and nothing of when it was made: a recorded one is as valid.
        """
        return _signer_untrusted(self.src, self._signed(), self.signature)


@dataclass(frozen=True, slots=True)
class ClassicSessionData:
    """An encrypted text. `sealed` is the ciphertext and its tag."""

    session_id: bytes
    nonce: bytes
    sealed: bytes

    @classmethod
    def encrypt(cls, session_id: bytes, key: bytes, nonce: bytes, text: bytes) -> Self:
        """Seal `text` under the session's key, 32 bytes. A nonce of 12 bytes must never be used twice."""
        return cls(session_id, nonce, AESGCM(key).encrypt(nonce, text, None))

    def __bytes__(self) -> bytes:
        """Write the message."""
        return _DATA_LEAD + self.session_id + self.nonce + self.sealed

    def decrypt(self, key: bytes) -> bytes:
        """Open it; raises `BadPacket` when this key did not seal it. Tells nothing of repetitions."""
        try:
            return AESGCM(key).decrypt(self.nonce, self.sealed, None)
        except InvalidTag:
            raise BadPacket("classic-data-forged") from None


ClassicMessage: TypeAlias = ClassicAddressDeclaration | ClassicSessionInitiation | ClassicSessionData


def parse_message(datagram: bytes) -> ClassicMessage:
    """Read a message by its type and length, without checking what it says. Raises only `BadPacket`."""
    size = len(datagram)
    kind = datagram[0] if size else None
    if kind == c.TYPE_SESSION_DATA:
        if not c.SESSION_DATA_OVERHEAD <= size <= c.MAX_MESSAGE_SIZE:
            raise BadPacket("classic-length")
        return ClassicSessionData(datagram[1:17], datagram[17:29], datagram[29:])
    if kind == c.TYPE_SESSION_INITIATION:
        if size != c.SESSION_INITIATION_SIZE:
            raise BadPacket("classic-length")
        return ClassicSessionInitiation(
            datagram[1:17], datagram[17:49], datagram[49:81], datagram[81:113], datagram[113:]
        )
    if kind == c.TYPE_ADDRESS_DECLARATION:
        if size != c.ADDRESS_DECLARATION_SIZE:
            raise BadPacket("classic-length")
        family = IPV4 if datagram[3:15] == _MAPPED else IPV6
        return ClassicAddressDeclaration(bytes([family, 0]) + datagram[1:19], datagram[19:51], datagram[51:])
    raise BadPacket("classic-type")
