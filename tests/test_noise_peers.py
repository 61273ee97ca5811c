"""Our Noise and the primitives below it against other implementations and published vectors (rows H1, H8, H9).

The vectors are read from the folder beside the repository that holds them, and skipped where there is none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from noise.connection import (  # type: ignore[import-untyped]  # it has no type information
    Keypair,
    NoiseConnection,
)

from mp2p_core.errors import BadKey, BadPacket
from mp2p_core.proto.identity import Identity, PublicKey
from mp2p_core.proto.noise import IK, CipherState, HandshakeState, IKpsk2, Pattern
from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256, Suite, X25519KeyPair, nonce_little_endian

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors"

PATTERNS = {
    "IK": IK,
    "IKpsk2": IKpsk2,
    "NNpsk0": Pattern("NNpsk0", (("psk", "e"), ("e", "ee"))),
    "NK": Pattern("NK", (("e", "es"), ("e", "ee")), responder_pre=("s",)),
    "KK": Pattern("KK", (("e", "es", "ss"), ("e", "ee", "se")), initiator_pre=("s",), responder_pre=("s",)),
    "XK": Pattern("XK", (("e", "es"), ("e", "ee"), ("s", "se")), responder_pre=("s",)),
    "XX": Pattern("XX", (("e",), ("e", "ee", "s", "es"), ("s", "se"))),
    "IX": Pattern("IX", (("e", "s"), ("e", "ee", "se", "s", "es"))),
}


def nonce_big_endian(n: int) -> bytes:
    return bytes(4) + n.to_bytes(8, "big")


def suite_named(cipher: str, hash_name: str) -> Suite:
    name, hash_names = f"25519_{cipher}_{hash_name}", {"SHA256": "sha256", "BLAKE2s": "blake2s"}
    if cipher == "AESGCM":
        return Suite(name, hash_names[hash_name], AESGCM, nonce_big_endian)
    assert cipher == "ChaChaPoly"
    return Suite(name, hash_names[hash_name], ChaCha20Poly1305, nonce_little_endian)


def load(name: str) -> Any:
    path = VECTORS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def cases(name: str, found: list[Any] | None, key: str) -> list[Any]:
    if found is None:
        return [
            pytest.param({}, id="absent", marks=pytest.mark.skip(reason=f"no {name} beside the repository"))
        ]
    return [pytest.param(case, id=str(case[key])) for case in found]


def noise_vectors() -> list[Any]:
    data = load("noise-cacophony.json")
    return cases("noise-cacophony.json", data and data["vectors"], "protocol_name")


def wycheproof(name: str, flag: str | None = None) -> list[Any]:
    data = load(name)
    found = data and [
        {**group, **test}
        for group in data["testGroups"]
        for test in group["tests"]
        if flag is None or flag in test["flags"]
    ]
    return cases(name, found, "tcId")


def of_vector(vector: dict[str, Any], *, initiator: bool) -> HandshakeState:
    """Build one side of a vector's handshake with the keys that it lists."""
    _, pattern, _, cipher, hash_name = vector["protocol_name"].split("_")
    side = "init" if initiator else "resp"

    def optional(name: str) -> bytes | None:
        return bytes.fromhex(vector[f"{side}_{name}"]) if f"{side}_{name}" in vector else None

    static, psks = optional("static"), vector.get(f"{side}_psks", [None])
    return HandshakeState(
        PATTERNS[pattern],
        initiator=initiator,
        prologue=bytes.fromhex(vector[f"{side}_prologue"]),
        s=None if static is None else X25519KeyPair(static),
        rs=optional("remote_static"),
        e=optional("ephemeral"),
        psk=None if psks[0] is None else bytes.fromhex(psks[0]),
        suite=suite_named(cipher, hash_name),
    )


@pytest.mark.parametrize("role", ["initiator", "responder"])
@pytest.mark.parametrize("vector", noise_vectors())
def test_H1_every_vector_byte_for_byte(vector: dict[str, Any], role: str) -> None:
    """Play one side against the recorded other side, transport messages included."""
    us = of_vector(vector, initiator=role == "initiator")
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    ours = [(number % 2 == 0) == (role == "initiator") for number in range(len(messages))]
    patterns = PATTERNS[vector["protocol_name"].split("_")[1]].messages
    length = len(patterns)
    assert len(messages) > length
    for (payload, ciphertext), writing, tokens in zip(messages, ours, patterns, strict=False):
        if writing:
            assert us.write_message(payload) == ciphertext
        else:
            assert us.copy().read_message_untrusted(ciphertext) == payload
            us.read_start_untrusted(ciphertext, until=tokens[0])
            assert us.read_finish_untrusted() == payload
    assert us.handshake_hash.hex() == vector["handshake_hash"]
    _, _, _, cipher, hash_name = vector["protocol_name"].split("_")
    states = [CipherState(suite_named(cipher, hash_name), key) for key in us.split()]
    for number, (payload, ciphertext) in enumerate(messages):
        if number < length:
            continue
        state = states[number % 2]
        if ours[number]:
            assert state.encrypt_with_ad(b"", payload) == ciphertext
        else:
            assert state.decrypt_with_ad_untrusted(b"", ciphertext) == payload


def test_H1_every_pattern_and_cipher_has_its_vector() -> None:
    data = load("noise-cacophony.json")
    if data is None:
        pytest.skip("no noise-cacophony.json beside the repository")
    names = {vector["protocol_name"] for vector in data["vectors"]}
    expected = {
        f"Noise_{pattern}_25519_{cipher}_{hash_name}"
        for pattern in PATTERNS
        for cipher in ("ChaChaPoly", "AESGCM")
        for hash_name in ("SHA256", "BLAKE2s")
    }
    assert names == expected


class Peer:
    """noiseprotocol on the other side."""

    def __init__(
        self, pattern: str, suite: Suite, *, initiator: bool, static: bytes, remote: bytes, psk: bytes | None
    ) -> None:
        self.noise = NoiseConnection.from_name(f"Noise_{pattern}_{suite.name}".encode("ascii"))
        if initiator:
            self.noise.set_as_initiator()
            self.noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
        else:
            self.noise.set_as_responder()
        self.noise.set_prologue(b"a prologue")
        self.noise.set_keypair_from_private_bytes(Keypair.STATIC, static)
        if psk is not None:
            self.noise.set_psks(psk)
        self.noise.start_handshake()


SUITES = [suite_named(cipher, name) for cipher in ("ChaChaPoly", "AESGCM") for name in ("SHA256", "BLAKE2s")]


@pytest.mark.parametrize("we_begin", [True, False], ids=["initiator", "responder"])
@pytest.mark.parametrize("psk", [None, b"k" * 32], ids=["IK", "IKpsk2"])
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_H1_noiseprotocol_in_both_roles(suite: Suite, psk: bytes | None, we_begin: bool) -> None:
    ours, theirs = Identity.from_seed(b"o" * 32), X25519KeyPair(b"t" * 32)
    pattern = IK if psk is None else IKpsk2
    us = HandshakeState(
        pattern,
        initiator=we_begin,
        prologue=b"a prologue",
        s=ours,
        rs=theirs.dh_public if we_begin else None,
        e=b"e" * 32,
        psk=psk,
        suite=suite,
    )
    them = Peer(
        pattern.name, suite, initiator=not we_begin, static=b"t" * 32, remote=ours.dh_public, psk=psk
    ).noise
    if we_begin:
        assert them.read_message(us.write_message(b"to you")) == b"to you"
        assert us.read_message_untrusted(bytes(them.write_message(b"and back"))) == b"and back"
    else:
        us.read_start_untrusted(bytes(them.write_message(b"to you")), until="s")
        assert us.remote_static == theirs.dh_public
        assert us.read_finish_untrusted() == b"to you"
        assert them.read_message(us.write_message(b"and back")) == b"and back"
    assert them.handshake_finished
    assert us.handshake_hash == them.get_handshake_hash()
    first, second = (CipherState(suite, key) for key in us.split())
    sending, receiving = (first, second) if we_begin else (second, first)
    for number in range(20):
        text = b"message %d" % number * number
        assert them.decrypt(sending.encrypt_with_ad(b"", text)) == text
        assert receiving.decrypt_with_ad_untrusted(b"", bytes(them.encrypt(text))) == text


def test_H14_noiseprotocol_with_another_psk() -> None:
    ours = Identity.from_seed(b"o" * 32)
    us = HandshakeState(IKpsk2, initiator=False, prologue=b"a prologue", s=ours, e=b"e" * 32, psk=b"x" * 32)
    them = Peer(
        "IKpsk2", CHACHAPOLY_SHA256, initiator=True, static=b"t" * 32, remote=ours.dh_public, psk=b"y" * 32
    ).noise
    us.read_message_untrusted(bytes(them.write_message(b"")))
    with pytest.raises(InvalidTag):
        them.read_message(us.write_message(b""))


class Dishonest:
    """A static key pair that claims a public key whose secret nobody needs to know."""

    def __init__(self, public: bytes) -> None:
        self.dh_public = public

    def exchange(self, peer: bytes) -> bytes:
        return bytes(32)


@pytest.mark.parametrize("case", wycheproof("wycheproof-x25519.json", "LowOrderPublic"))
def test_H8_low_order_publics_get_nowhere(case: dict[str, Any]) -> None:
    """As e of either message, as s of the first, and as the key of a peer."""
    low, bob = bytes.fromhex(case["public"]), Identity.from_seed(b"b" * 32)

    def responder() -> HandshakeState:
        return HandshakeState(IK, initiator=False, prologue=b"", s=bob, e=b"e" * 32)

    with pytest.raises(BadPacket, match="small order"):
        responder().read_message_untrusted(low + bytes(64))
    caller = HandshakeState(IK, initiator=True, prologue=b"", s=Dishonest(low), rs=bob.dh_public, e=b"i" * 32)
    with pytest.raises(BadPacket, match="small order"):
        responder().read_message_untrusted(caller.write_message(b""))
    honest = HandshakeState(
        IK, initiator=True, prologue=b"", s=Identity.from_seed(b"a" * 32), rs=bob.dh_public, e=b"i" * 32
    )
    honest.write_message(b"")
    with pytest.raises(BadPacket, match="small order"):
        honest.read_message_untrusted(low + bytes(16))
    with pytest.raises(BadKey, match="no secret can be shared"):
        bob.exchange(low)


@pytest.mark.parametrize("case", wycheproof("wycheproof-x25519.json"))
def test_H9_x25519(case: dict[str, Any]) -> None:
    pair = X25519KeyPair(bytes.fromhex(case["private"]))
    if "ZeroSharedSecret" in case["flags"]:
        with pytest.raises(ValueError, match="shared key"):
            pair.exchange(bytes.fromhex(case["public"]))
    else:
        assert pair.exchange(bytes.fromhex(case["public"])).hex() == case["shared"]


@pytest.mark.parametrize("case", wycheproof("wycheproof-ed25519.json"))
def test_H9_ed25519(case: dict[str, Any]) -> None:
    """What identities rest on: `cryptography`'s Ed25519, and our check of the keys."""
    raw = bytes.fromhex(case["publicKey"]["pk"])
    key = Ed25519PublicKey.from_public_bytes(PublicKey(raw).raw)
    signature, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
    if case["result"] == "valid":
        key.verify(signature, message)
    else:
        with pytest.raises(InvalidSignature):
            key.verify(signature, message)


@pytest.mark.parametrize("case", wycheproof("wycheproof-chacha20poly1305.json"))
def test_H9_chacha20_poly1305(case: dict[str, Any]) -> None:
    aead = CHACHAPOLY_SHA256.aead(bytes.fromhex(case["key"]))
    nonce, ad = bytes.fromhex(case["iv"]), bytes.fromhex(case["aad"])
    sealed, plaintext = bytes.fromhex(case["ct"] + case["tag"]), bytes.fromhex(case["msg"])
    if case["result"] == "valid":
        assert aead.encrypt(nonce, plaintext, ad) == sealed
        assert aead.decrypt(nonce, sealed, ad) == plaintext
    else:
        with pytest.raises(InvalidTag):
            aead.decrypt(nonce, sealed, ad)
