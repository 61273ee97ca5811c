"""The messages of the classic profile: what is refused, and why (docs/protocol.md, section 10)."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.classic import (
    TYPE_ADDRESS_DECLARATION,
    TYPE_SESSION_DATA,
    TYPE_SESSION_INITIATION,
    ClassicAddressDeclaration,
    ClassicIdentity,
    ClassicMessage,
    ClassicSessionData,
    ClassicSessionInitiation,
    parse_message,
)
from mp2p_core.errors import BadPacket
from mp2p_core.proto.addresses import pack_ipv4, pack_ipv6

ALICE, BOB = ClassicIdentity(bytes(32)), ClassicIdentity(bytes(31) + b"\1")
KEY = bytes(range(32))
SIZES = {
    TYPE_ADDRESS_DECLARATION: {115},
    TYPE_SESSION_INITIATION: {177},
    TYPE_SESSION_DATA: set(range(45, 1501)),
}


def declaration() -> ClassicAddressDeclaration:
    return ClassicAddressDeclaration.make(ALICE, pack_ipv4("224.0.230.7", 1025))


def initiation() -> ClassicSessionInitiation:
    return ClassicSessionInitiation.make(ALICE, bytes(16), BOB.public, bytes(range(32)))


def data() -> ClassicSessionData:
    return ClassicSessionData.encrypt(bytes(16), KEY, bytes(12), b"21.5 degrees")


@pytest.mark.parametrize("make", [declaration, initiation, data])
def test_what_is_written_reads_back(make: Callable[[], ClassicMessage]) -> None:
    message = make()
    assert parse_message(bytes(message)) == message


def test_an_ipv6_address_reads_back() -> None:
    address = pack_ipv6("ff1e:92a8:3287:fe8b:9103:a9e6:26f:73c6", 1024)
    read = parse_message(bytes(ClassicAddressDeclaration.make(ALICE, address)))
    assert isinstance(read, ClassicAddressDeclaration)
    assert read.address == address


@pytest.mark.parametrize("kind", range(256))
def test_P1_P2_every_type_has_its_length(kind: int) -> None:
    lengths = SIZES.get(kind, set())
    for size in (*range(1, 301), 1499, 1500, 1501, 1502, 65507):
        datagram = bytes([kind]) + bytes(size - 1)
        if size in lengths:
            assert bytes(parse_message(datagram)) == datagram
        else:
            with pytest.raises(BadPacket, match="classic-length" if lengths else "classic-type"):
                parse_message(datagram)


def test_P1_an_empty_datagram() -> None:
    with pytest.raises(BadPacket, match="classic-type"):
        parse_message(b"")


@given(st.binary(max_size=1600))
def test_P9_nothing_raises_anything_else(datagram: bytes) -> None:
    try:
        message = parse_message(datagram)
    except BadPacket:
        return
    assert bytes(message) == datagram
    if isinstance(message, ClassicSessionData):
        with pytest.raises(BadPacket):
            message.decrypt(KEY)
    else:
        with pytest.raises(BadPacket):
            message.validate()


@pytest.mark.parametrize("make", [declaration, initiation])
def test_P8_single_bit_flips_of_signed_messages(make: Callable[[], ClassicMessage]) -> None:
    whole = bytes(make())
    for bit in range(8, len(whole) * 8):  # the first byte makes it another type
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        message = parse_message(bytes(flipped))
        assert not isinstance(message, ClassicSessionData)
        with pytest.raises(BadPacket, match="classic-signature"):
            message.validate()


def test_P8_single_bit_flips_of_data() -> None:
    """All but those of the session id, which this wire does not authenticate: it only picks the key."""
    whole = bytes(data())
    for bit in range(17 * 8, len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        message = parse_message(bytes(flipped))
        assert isinstance(message, ClassicSessionData)
        with pytest.raises(BadPacket, match="classic-data-forged"):
            message.decrypt(KEY)


def test_K4_a_key_of_small_order_signs_nothing() -> None:
    """The neutral element as a key: R = neutral, S = 0 is a signature of every message."""
    neutral = b"\1" + bytes(31)
    signature = neutral + bytes(32)
    Ed25519PublicKey.from_public_bytes(neutral).verify(signature, b"anything")
    address = pack_ipv4("224.0.230.7", 1025)
    with pytest.raises(BadPacket, match="classic-signature"):
        ClassicAddressDeclaration(address, neutral, signature).validate()


def test_L2_an_identity_shows_no_secret() -> None:
    seed = os.urandom(32)
    identity = ClassicIdentity(seed)
    assert repr(identity) == f"<ClassicIdentity {identity.public}>"
    import pickle

    with pytest.raises(TypeError):
        pickle.dumps(identity)
