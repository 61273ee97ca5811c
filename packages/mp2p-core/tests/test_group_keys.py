"""Sender keys (protocol section 8; rows G5, G9)."""

from __future__ import annotations

import hashlib
import hmac
import random

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.keys import (
    GroupSuite,
    ReceiveKeys,
    SendKeys,
    message_key,
    next_chain_key,
    topic_id,
)

NONCE = bytes(12)


def keys(seed: int = 1) -> SendKeys:
    return SendKeys(1, random.Random(seed).randbytes)


def test_labels_are_those_of_the_protocol() -> None:
    assert next_chain_key(b"c" * 32) == hmac.digest(b"c" * 32, b"mp2p-v1 gen\x01", "sha256")
    assert message_key(b"c" * 32, b"channel-", 258) == hmac.digest(
        b"c" * 32, b"mp2p-v1 key\x01channel-\x01\x02", "sha256"
    )
    expected = hashlib.blake2s(b"mp2p-v1 topic\0" + b"P" * 32 + "wätter".encode(), digest_size=16).digest()
    assert topic_id(b"P" * 32, "wätter") == expected


def test_every_epoch_draws_everything_anew() -> None:
    draw = random.Random(2).randbytes
    one, two = SendKeys(1, draw), SendKeys(2, draw)
    assert one.channel != two.channel
    assert one.chain_key != two.chain_key
    assert one.signing_key != two.signing_key


def test_members_step_forward_by_themselves() -> None:
    sender = keys()
    member = ReceiveKeys(sender.channel, 0, sender.chain_key)
    sealed = {}
    for generation in range(c.MAX_GENERATION + 1):
        sealed[generation] = sender.aead.encrypt(NONCE, b"%d" % generation, b"")
        if generation < c.MAX_GENERATION:
            sender.step()
    for generation in (64, 3, 0, 17):  # in any order, also back
        aead = member.aead_untrusted(generation)
        assert aead is not None
        assert aead.decrypt(NONCE, sealed[generation], b"") == b"%d" % generation


def test_G9_a_newcomer_has_no_key_of_the_past() -> None:
    sender = keys()
    sender.step()
    sender.step()
    newcomer = ReceiveKeys(sender.channel, sender.generation, sender.chain_key)
    assert newcomer.aead_untrusted(1) is None
    assert newcomer.aead_untrusted(0) is None
    assert newcomer.aead_untrusted(2) is not None


def test_G5_a_far_generation_costs_no_step() -> None:
    made = []

    def aead(key: bytes) -> ChaCha20Poly1305:
        made.append(key)
        return ChaCha20Poly1305(key)

    sender = keys()
    member = ReceiveKeys(sender.channel, 0, sender.chain_key, GroupSuite(aead))
    for generation in (65535, 65, 66, 1000):
        assert member.aead_untrusted(generation) is None
    assert not made
    for _ in range(100):
        member.aead_untrusted(64)
    assert len(made) == 1
    assert len(member._chain) == 65
