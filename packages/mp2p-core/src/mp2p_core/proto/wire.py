"""Layouts of INIT, RESP, COOKIE and the DATA header, to the byte (docs/protocol.md, sections 3, 4 and 6).

Nothing in here encrypts. Functions that read what the network brought end in `_untrusted` and raise only
`BadPacket`, whose text is the counter to raise.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import Final, NamedTuple

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.transport import ADDRESS_SIZE, Address

__all__ = [
    "FLAG_HINT",
    "NO_ADDRESS",
    "CookieHeader",
    "InitHeader",
    "InitPayload",
    "RespPayload",
    "cookie_header",
    "data_header",
    "init_fields",
    "init_header",
    "init_lead",
    "is_init_untrusted",
    "parse_cookie_untrusted",
    "parse_init_payload_untrusted",
    "parse_resp_payload_untrusted",
    "parse_resp_untrusted",
    "resp_header",
]

FLAG_HINT: Final = 0x01
NO_ADDRESS: Final[Address] = bytes(ADDRESS_SIZE)
"""Kind 0: the source you saw."""

# INIT, 256 bytes
#    0   1 type 0x11
#    1   1 suite
#    2   1 flags (bit 0: a hint follows)
#    3   1 zero
#    4   8 initiator's receive id
#   12  20 hint: an address record, or zeros
#   32  32 e
#   64  48 s, encrypted
#  112 112 payload of 96 bytes, encrypted
#  224  16 mac1
#  240  16 mac2, or zeros
INIT_NOISE: Final = slice(32, 224)
INIT_MAC1: Final = slice(224, 240)
INIT_MAC2: Final = slice(240, 256)
INIT_BEFORE_MAC1: Final = slice(0, 224)
INIT_BEFORE_MAC2: Final = slice(0, 240)


class InitHeader(NamedTuple):
    """The readable part of an INIT."""

    receive_id: bytes
    hint: Address | None


def init_lead(suite: int, *, hint: bool) -> bytes:
    """Return bytes 0 to 3 of an INIT."""
    return bytes([c.TYPE_INIT, suite, FLAG_HINT if hint else 0, 0])


def init_header(receive_id: bytes, hint: Address | None, suite: int = c.SUITE_IK) -> bytes:
    """Pack bytes 0 to 31 of an INIT."""
    return init_lead(suite, hint=hint is not None) + receive_id + (hint or NO_ADDRESS)


def is_init_untrusted(datagram: bytes, lead: bytes, lead_hint: bytes) -> bool:
    """Check an INIT's size, suite, reserved bits and hint: step 1 of the responder. Never raises.

    The leads are those of `init_lead`, without a hint and with one. Comparing slices takes half the time of
    unpacking, and a shared group is full of INITs for others.
    """
    if len(datagram) != c.INIT_SIZE:
        return False
    found = datagram[:4]
    if found == lead:
        return datagram[12:32] == NO_ADDRESS
    return found == lead_hint and datagram[12] != 0 and datagram[13] == 0


def init_fields(datagram: bytes) -> InitHeader:
    """Read the header of what `is_init_untrusted` has passed."""
    return InitHeader(datagram[4:12], datagram[12:32] if datagram[2] & FLAG_HINT else None)


# INIT payload, 96 bytes
#    0 32 the initiator's Ed25519 key
#   32  8 timestamp, microseconds since 1970
#   40 20 return address record
#   60  4 capabilities
#   64  2 largest UDP payload
#   66  1 highest version
#   67  1 flags (bit 0: continues a connection; bit 1: may have crossed a call of the responder's;
#       bit 2, with bit 0: or begins a new one)
#   68 16 connection token
#   84 12 zeros
_INIT_PAYLOAD = struct.Struct(">32sQ20sIHBB16s12s")
INIT_PAYLOAD_SIZE: Final = _INIT_PAYLOAD.size
_ZERO12 = bytes(12)
_CONTINUES: Final = 1
_MAY_CROSS: Final = 2
_OR_NEW: Final = 4
_FLAGS: Final = (0, _CONTINUES, _MAY_CROSS, _CONTINUES | _OR_NEW)
"""The combinations there are."""


class InitPayload(NamedTuple):
    """What an initiator says of itself, under encryption."""

    key: bytes
    timestamp: int
    return_address: Address
    capabilities: int
    max_payload: int
    version: int
    continues: bool
    token: bytes
    may_cross: bool = False
    """Whether its sender knew of no other call or unsettled session between the two."""
    or_new: bool = False
    """Whether a responder that does not know the connection is to begin a new one."""

    def pack(self) -> bytes:
        """Pack 96 bytes."""
        return _INIT_PAYLOAD.pack(
            self.key, self.timestamp, self.return_address, self.capabilities, self.max_payload, self.version,
            _CONTINUES * self.continues | _MAY_CROSS * self.may_cross | _OR_NEW * self.or_new, self.token, _ZERO12,
        )  # fmt: skip


def parse_init_payload_untrusted(payload: bytes) -> InitPayload:
    """Read the 96 bytes an initiator sealed. A known peer may still lie in them."""
    if len(payload) != INIT_PAYLOAD_SIZE:
        raise BadPacket("init-malformed")
    key, timestamp, address, capabilities, max_payload, version, flags, token, zeros = _INIT_PAYLOAD.unpack(
        payload
    )
    if zeros != _ZERO12 or flags not in _FLAGS or address[1]:
        raise BadPacket("init-malformed")
    if max_payload < c.BASE_DATAGRAM_SIZE or version < 1:
        raise BadPacket("init-malformed")
    return InitPayload(
        key, timestamp, address, capabilities, max_payload, version, bool(flags & _CONTINUES), token,
        may_cross=bool(flags & _MAY_CROSS), or_new=bool(flags & _OR_NEW),
    )  # fmt: skip


# RESP, 156 bytes
#    0  1 type 0x12
#    1  1 suite
#    2  2 zero
#    4  8 the INIT's receive id
#   12 32 e
#   44 96 payload of 80 bytes, encrypted
#  140 16 mac1 under the initiator's key
_RESP_HEADER = struct.Struct(">BBH8s")
RESP_NOISE: Final = slice(12, 140)
RESP_MAC1: Final = slice(140, 156)
RESP_BEFORE_MAC1: Final = slice(0, 140)


def resp_header(receive_id: bytes, suite: int = c.SUITE_IK) -> bytes:
    """Pack bytes 0 to 11 of a RESP."""
    return _RESP_HEADER.pack(c.TYPE_RESP, suite, 0, receive_id)


def parse_resp_untrusted(datagram: bytes, suite: int = c.SUITE_IK) -> bytes:
    """Check a RESP's size and header; returns the receive id it answers."""
    if len(datagram) != c.RESP_SIZE:
        raise BadPacket("resp-malformed")
    kind, found, zero, receive_id = _RESP_HEADER.unpack_from(datagram)
    if kind != c.TYPE_RESP or found != suite or zero:
        raise BadPacket("resp-malformed")
    return bytes(receive_id)


# RESP payload, 80 bytes
#    0  8 responder's receive id
#    8 16 connection token
#   24 20 responder's address record: where to send DATA
#   44  4 capabilities
#   48  2 largest UDP payload
#   50  1 highest version
#   51  1 status
#   52  4 idle timeout, milliseconds
#   56 24 zeros
_RESP_PAYLOAD = struct.Struct(">8s16s20sIHBBI24s")
_ZERO24 = bytes(24)


class RespPayload(NamedTuple):
    """What a responder says of itself, under encryption."""

    receive_id: bytes
    token: bytes
    address: Address
    capabilities: int
    max_payload: int
    version: int
    status: int
    idle_timeout_ms: int

    def pack(self) -> bytes:
        """Pack 80 bytes."""
        return _RESP_PAYLOAD.pack(*self, _ZERO24)


def parse_resp_payload_untrusted(payload: bytes) -> RespPayload:
    """Read the 80 bytes a responder sealed."""
    if len(payload) != _RESP_PAYLOAD.size:
        raise BadPacket("resp-malformed")
    *fields, zeros = _RESP_PAYLOAD.unpack(payload)
    parsed = RespPayload(*fields)
    if zeros != _ZERO24 or parsed.address[1]:
        raise BadPacket("resp-malformed")
    if parsed.max_payload < c.BASE_DATAGRAM_SIZE or parsed.version < 1:
        raise BadPacket("resp-malformed")
    return parsed


# COOKIE, 60 bytes
#    0  1 type 0x13
#    1  3 zeros
#    4  8 the INIT's receive id
#   12 16 nonce
#   28 32 the cookie of 16 bytes, encrypted
_COOKIE = struct.Struct(">B3s8s16s32s")
_ZERO3 = bytes(3)


class CookieHeader(NamedTuple):
    """A COOKIE taken apart, still sealed."""

    receive_id: bytes
    nonce: bytes
    sealed: bytes


def cookie_header(receive_id: bytes, nonce: bytes, sealed: bytes) -> bytes:
    """Pack a whole COOKIE."""
    return _COOKIE.pack(c.TYPE_COOKIE, _ZERO3, receive_id, nonce, sealed)


def parse_cookie_untrusted(datagram: bytes) -> CookieHeader:
    """Check a COOKIE's size and reserved bytes."""
    if len(datagram) != c.COOKIE_SIZE:
        raise BadPacket("cookie-malformed")
    kind, zeros, receive_id, nonce, sealed = _COOKIE.unpack(datagram)
    if kind != c.TYPE_COOKIE or zeros != _ZERO3:
        raise BadPacket("cookie-malformed")
    return CookieHeader(receive_id, nonce, sealed)


# DATA
#    0  1 type 0x14
#    1  1 zero
#    2  8 receiver's id
#   10  8 packet number
#   18  n ciphertext
#    .  16 tag
_DATA_HEADER = struct.Struct(">BB8sQ")
data_header = partial(_DATA_HEADER.pack, c.TYPE_DATA, 0)
"""Pack bytes 0 to 17 of a DATA packet, also its associated data, from receiver's id and packet number."""
data_packet_number = struct.Struct(">Q").unpack_from
