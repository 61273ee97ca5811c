"""An epoch: two keys and two ids of a connection, from one handshake to the next (docs/protocol.md, section 6)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

from mp2p_core.proto import constants as c
from mp2p_core.proto.noise_suite import nonce_little_endian
from mp2p_core.proto.parts import cut, part_header
from mp2p_core.proto.wire import data_header

if TYPE_CHECKING:
    from mp2p_core.proto.noise_suite import Aead
    from mp2p_core.proto.transmit import Packet
    from mp2p_core.transport import Path

__all__ = ["Epoch", "SessionKeys", "Traffic"]


class Traffic:
    """What a session has sealed and opened, under all of its epochs. Bytes are those of sealed packets."""

    __slots__ = ("bytes_received", "bytes_sent", "packets_received", "packets_sent")

    def __init__(self) -> None:
        self.packets_sent = self.bytes_sent = 0
        self.packets_received = self.bytes_received = 0


class SessionKeys:
    """What a handshake leaves behind. Never shown: repr is the default one of object."""

    __slots__ = ("handshake_hash", "receive", "send", "token")

    def __init__(self, send: Aead, receive: Aead, handshake_hash: bytes, token: bytes) -> None:
        self.send = send
        self.receive = receive
        self.handshake_hash = handshake_hash
        self.token = token


class Epoch:
    """Seals and opens packets. Packet numbers go on from epoch to epoch; the keys never meet one twice."""

    __slots__ = (
        "_keys", "began", "channel", "expires", "failed", "first_number", "local_id", "ours", "path", "preferred",
        "remote_id", "seals_until", "timestamp", "traffic",
    )  # fmt: skip

    def __init__(
        self,
        *,
        keys: SessionKeys,
        local_id: bytes,
        remote_id: bytes,
        channel: int,
        path: Path,
        began: float,
        first_number: int = 0,
        ours: bool,
        preferred: bool = True,
        timestamp: int = 0,
    ) -> None:
        self._keys = keys
        self.local_id = local_id
        self.remote_id = remote_id
        self.channel = channel
        self.path = path
        self.began = began
        self.first_number = first_number
        self.ours = ours
        """Whether this side began it."""
        self.preferred = preferred
        """Whether it wins over one that the other side began at the same time: the smaller key's does."""
        self.timestamp = timestamp
        """That of its INIT."""
        self.failed = 0
        """Packets that named this epoch and did not open."""
        self.traffic = Traffic()
        self.seals_until = began + c.EPOCH_LIFE
        """When nothing may be sent under it any more."""
        self.expires = math.inf
        """When its receive key goes, once another epoch has taken over."""

    @property
    def handshake_hash(self) -> bytes:
        """Return the hash of the handshake that began it."""
        return self._keys.handshake_hash

    def open_untrusted(self, number: int, sealed: bytes, associated: bytes) -> bytes | None:
        """Open a packet; None when it does not verify."""
        try:
            plaintext = self._keys.receive.decrypt(nonce_little_endian(number), sealed, associated)
        except InvalidTag:
            self.failed += 1
            return None
        traffic = self.traffic
        traffic.packets_received += 1
        traffic.bytes_received += len(sealed) + len(associated)
        return plaintext

    def seal(self, number: int, plaintext: bytes, datagrams: int, datagram: int) -> Packet:
        """Seal a packet that spans so many datagrams of at most `datagram` bytes."""
        nonce = nonce_little_endian(number)
        traffic = self.traffic
        traffic.packets_sent += 1
        if datagrams == 1:
            header = data_header(self.remote_id, number)
            sealed = header + self._keys.send.encrypt(nonce, plaintext, header)
            traffic.bytes_sent += len(sealed)
            return sealed, len(sealed)
        header = part_header(self.remote_id, number, datagrams)
        sealed = self._keys.send.encrypt(nonce, plaintext, header)
        traffic.bytes_sent += len(sealed) + len(header)
        return cut(sealed, self.remote_id, number, datagram), datagram

    def worn_out(self, next_number: int) -> bool:
        """Tell whether so many packets were sealed, or failed to open, that new keys are due."""
        return next_number - self.first_number >= c.REKEY_PACKETS or self.failed >= c.REKEY_FAILURES
