"""Seals and signs the datagrams of one epoch (docs/protocol.md, section 8).

One signature covers a datagram, or by a manifest up to 64 that follow it: a signature costs as much as
sealing 25 datagrams.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.layout import (
    DIGEST_SIZE,
    HEARTBEAT,
    MANIFEST,
    PARITY,
    ROTATE,
    group_header,
    heartbeat_body,
    manifest_body,
    rotate_body,
)
from mp2p_core.proto.noise_suite import nonce_little_endian

if TYPE_CHECKING:
    from mp2p_core.proto.group.keys import SendKeys

__all__ = ["Sealer"]

_MANIFEST = bytes((MANIFEST,))
_HEARTBEAT = bytes((HEARTBEAT,))
_ROTATE = bytes((ROTATE,))
_PARITY = bytes((PARITY,))


class Sealer:
    """Gives each datagram the next seq, and never one twice under a key."""

    __slots__ = ("_prefix", "keys", "next_seq")

    def __init__(self, owner: bytes, keys: SendKeys) -> None:
        self.keys = keys
        self._prefix = c.LABEL_GROUP + owner
        self.next_seq = 1

    def _signed(self, plain: bytes, seq: int) -> bytes:
        keys = self.keys
        header = group_header(keys.generation, keys.channel, seq)
        plain += keys.sign(self._prefix + header + plain)
        return header + keys.aead.encrypt(nonce_little_endian(seq), plain, header)

    def data(self, plain: bytes) -> bytes:
        """Seal a DATA that is signed itself."""
        seq = self.next_seq
        self.next_seq = seq + 1
        return self._signed(plain, seq)

    def covered(self, plains: Sequence[bytes]) -> list[bytes]:
        """Seal a MANIFEST and the 1 to 64 DATA that it covers, of these plaintexts."""
        first = self.next_seq
        keys = self.keys
        generation, channel, encrypt = keys.generation, keys.channel, keys.aead.encrypt
        sealed = []
        digests = []
        for seq, plain in enumerate(plains, first + 1):
            header = group_header(generation, channel, seq)
            datagram = header + encrypt(nonce_little_endian(seq), plain, header)
            sealed.append(datagram)
            digests.append(sha256(datagram).digest()[:DIGEST_SIZE])
        self.next_seq = first + 1 + len(plains)
        return [self._signed(_MANIFEST + manifest_body(digests), first), *sealed]

    def heartbeat(self, oldest: int, members: int, number: int) -> bytes:
        """Seal a HEARTBEAT about everything before it."""
        seq = self.next_seq
        self.next_seq = seq + 1
        return self._signed(_HEARTBEAT + heartbeat_body(seq - 1, oldest, members, number), seq)

    def rotate(self) -> bytes:
        """Seal the ROTATE, after which nothing more is sealed here: its own seq lies past the last one."""
        return self._signed(_ROTATE + rotate_body(self.next_seq - 1), self.next_seq)

    def parity(self, seq: int, body: bytes) -> bytes:
        """Seal a PARITY: without a signature, since what is restored from it proves itself.

        Its seq says what it is the sum of, so the same one is never another.
        """
        keys = self.keys
        header = group_header(keys.generation, keys.channel, seq)
        return header + keys.aead.encrypt(nonce_little_endian(seq), _PARITY + body, header)
