"""Messages of the original implementation, byte for byte in both directions (docs/protocol.md, section 10).

The vectors are read from the folder beside the repository that holds them, and skipped where there is none.
"""

from __future__ import annotations

import json
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mp2p_core.classic import (
    ClassicAddressDeclaration,
    ClassicIdentity,
    ClassicSessionData,
    ClassicSessionInitiation,
    parse_message,
)
from mp2p_core.classic.session import agree_untrusted
from mp2p_core.errors import AddressError, BadPacket
from mp2p_core.proto.addresses import check_classic_group, check_group, pack_ipv4, pack_ipv6
from mp2p_transport_v6 import new_ipv6_from_prefix

FILE = Path(__file__).resolve().parents[2] / "shared" / "vectors" / "classic.json"


def entries(kind: str) -> list[Any]:
    if not FILE.exists():
        return [
            pytest.param(
                {}, id="absent", marks=pytest.mark.skip(reason=f"no {FILE.name} beside the repository")
            )
        ]
    found = json.loads(FILE.read_text(encoding="utf-8"))[kind]
    assert found
    return [pytest.param(entry, id=str(number)) for number, entry in enumerate(found)]


def identity(seed: str) -> ClassicIdentity:
    return ClassicIdentity(bytes.fromhex(seed))


def test_every_kind_of_entry_is_read() -> None:
    if not FILE.exists():
        pytest.skip(f"no {FILE.name} beside the repository")
    kinds = {"address_declaration", "session_initiation", "session_data", "prefixed_ipv6"}
    assert set(json.loads(FILE.read_text(encoding="utf-8"))) - {"about"} == kinds


@pytest.mark.parametrize("entry", entries("address_declaration"))
def test_address_declarations(entry: Any) -> None:
    datagram = bytes.fromhex(entry["bytes"])
    message = parse_message(datagram)
    assert isinstance(message, ClassicAddressDeclaration)
    pack = pack_ipv6 if ":" in entry["address"] else pack_ipv4
    address = pack(entry["address"], entry["port"])
    assert (message.address, message.src.hex()) == (address, entry["public_key"])
    assert bytes(message) == datagram
    made = bytes(ClassicAddressDeclaration.make(identity(entry["seed"]), address))
    if entry["valid"]:
        assert message.validate() == identity(entry["seed"]).public
        assert made == datagram
    else:
        with pytest.raises(BadPacket, match="classic-signature"):
            message.validate()
        assert made != datagram


@pytest.mark.parametrize("entry", entries("session_initiation"))
def test_session_initiations_and_their_keys(entry: Any) -> None:
    sides = {side: identity(entry[f"{side}_seed"]) for side in ("initiator", "responder")}
    private = {
        side: X25519PrivateKey.from_private_bytes(bytes.fromhex(entry[f"{side}_ephemeral_private"]))
        for side in sides
    }
    read: dict[str, ClassicSessionInitiation] = {}
    for name, side, other in (
        ("initiation", "initiator", "responder"),
        ("response", "responder", "initiator"),
    ):
        datagram = bytes.fromhex(entry[name])
        message = parse_message(datagram)
        assert isinstance(message, ClassicSessionInitiation)
        read[side] = message
        assert message.session_id.hex() == entry["session_id"]
        assert (message.src, message.dst) == (sides[side].public.raw, sides[other].public.raw)
        assert message.validate() == sides[side].public
        assert bytes(message) == datagram
        public = private[side].public_key().public_bytes_raw()
        made = ClassicSessionInitiation.make(sides[side], message.session_id, sides[other].public, public)
        assert bytes(made) == datagram
    key = bytes.fromhex(entry["session_key"])
    assert agree_untrusted(private["initiator"], read["responder"].public) == key
    assert agree_untrusted(private["responder"], read["initiator"].public) == key


@pytest.mark.parametrize("entry", entries("session_data"))
def test_session_data(entry: Any) -> None:
    datagram, key = bytes.fromhex(entry["bytes"]), bytes.fromhex(entry["session_key"])
    text, nonce = bytes.fromhex(entry["plaintext"]), bytes.fromhex(entry["nonce"])
    message = parse_message(datagram)
    assert isinstance(message, ClassicSessionData)
    assert (message.session_id.hex(), message.nonce) == (entry["session_id"], nonce)
    assert message.decrypt(key) == text
    assert bytes(message) == datagram
    assert bytes(ClassicSessionData.encrypt(message.session_id, key, nonce, text)) == datagram
    with pytest.raises(BadPacket, match="classic-data-forged"):
        message.decrypt(bytes(32))


@pytest.mark.parametrize("entry", entries("prefixed_ipv6"))
def test_prefixes(entry: Any) -> None:
    """Groups as the original wrote them are taken; ours have the same prefix, and the length that it has."""
    network = ip_interface(entry["prefix"]).network
    if not entry["accepted"]:
        with pytest.raises(AddressError):
            new_ipv6_from_prefix(str(network))
        return
    theirs = pack_ipv6(ip_address_of(entry["first_12_bytes"]), 1026)
    check_classic_group(theirs)
    with pytest.raises(AddressError, match="the prefix length of an ff3e group is 1 to 64"):
        check_group(theirs)
    ours = pack_ipv6(new_ipv6_from_prefix(str(network)), 1026)
    assert (ours[:7], ours[8:16]) == (theirs[:7], theirs[8:16])
    assert (ours[7], theirs[7]) == (min(network.prefixlen, 64), 128)


def ip_address_of(first_12_bytes: str) -> str:
    """Add a group id, and write the address."""
    groups = first_12_bytes + "80000001"
    return ":".join(groups[at : at + 4] for at in range(0, 32, 4))
