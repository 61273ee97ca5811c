"""Seals and signs the datagrams of one epoch (docs/protocol.md, section 8).

One signature covers a datagram, or by a manifest up to 64 that follow it: a signature costs as much as
sealing 25 datagrams.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.layout import (
    DIGEST_SIZE,
    HEARTBEAT,
    LARGE,
    MANIFEST,
    NO_DIGEST,
    PARITY,
    ROTATE,
    SIGNATURE_SIZE,
    group_header,
    heartbeat_body,
    large_body,
    large_nonce,
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
_LARGE = bytes((LARGE,))
_PADDED_FROM: Final = 24
"""Parts from which on a LARGE is as long as they are, and leaves in one train with them."""


class Sealer:
    """Gives each datagram the next seq, and never one twice under a key."""

    __slots__ = ("_after_large", "_large_digest", "_prefix", "keys", "next_seq")

    def __init__(self, owner: bytes, keys: SendKeys) -> None:
        self.keys = keys
        self._prefix = c.LABEL_GROUP + owner
        self.next_seq = 1
        self._large_digest = NO_DIGEST
        self._after_large = 0  # the seq after the last large packet

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

    def large(self, plains: Sequence[bytes], datagram: int) -> list[bytes]:
        """Seal packets that leave together: of each a LARGE and the 1 to 53 parts that it covers.

        No datagram has more than `datagram` bytes. Each LARGE names the one behind it, and the first one that of the
        packet before, if nothing lies between: its signature proves all of these.
        """
        first = seq = self.next_seq
        room = datagram - c.GROUP_HEADER_SIZE
        packets = []
        for plain in plains:
            parts = self._parts(plain, seq + 1, room)
            packets.append((seq, parts))
            seq += 1 + len(parts)
        before = self._large_digest if self._after_large == first else NO_DIGEST
        self.next_seq = self._after_large = seq
        following = NO_DIGEST
        sealed: list[list[bytes]] = []
        for seq, parts in reversed(packets):
            digests = [sha256(part).digest()[:DIGEST_SIZE] for part in parts]
            whole = sha256(b"".join(parts)).digest()[:DIGEST_SIZE]
            previous = before if seq == first else NO_DIGEST
            body = _LARGE + large_body(previous, following, whole, digests)
            if len(parts) >= _PADDED_FROM:
                body = body.ljust(room - c.TAG_SIZE - SIGNATURE_SIZE, b"\0")
            manifest = self._signed(body, seq)
            following = sha256(manifest).digest()[:DIGEST_SIZE]
            if not sealed:
                self._large_digest = following
            sealed.append([manifest, *parts])
        return [each for packet in reversed(sealed) for each in packet]

    def _parts(self, plain: bytes, first: int, room: int) -> list[bytes]:
        """Seal a packet and cut it into parts, numbered from `first` on."""
        keys = self.keys
        generation, channel = keys.generation, keys.channel
        sealed = keys.aead.encrypt(large_nonce(1, first), plain, group_header(generation, channel, first))
        return [
            group_header(generation, channel, seq) + sealed[at : at + room]
            for seq, at in enumerate(range(0, len(sealed), room), first)
        ]

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
