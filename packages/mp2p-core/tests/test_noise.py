"""Handshakes of ours with ours: rules, forgeries and wasted work. The workspace's tests bring other peers."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket, UsageError
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.noise import IK, CipherState, HandshakeState, IKpsk2, Pattern, SymmetricState
from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256, KeyPair, Suite, X25519KeyPair

ALICE = Identity.from_seed(b"a" * 32)
BOB = Identity.from_seed(b"b" * 32)
PROLOGUE = b"mp2p tests"
PSK = b"p" * 32
NN = Pattern("NN", (("e",), ("e", "ee")))


def initiator(
    pattern: Pattern = IK, *, prologue: bytes = PROLOGUE, psk: bytes | None = None
) -> HandshakeState:
    return HandshakeState(
        pattern, initiator=True, prologue=prologue, s=ALICE, rs=BOB.public.x25519, e=b"1" * 32, psk=psk
    )


def responder(
    pattern: Pattern = IK,
    *,
    prologue: bytes = PROLOGUE,
    psk: bytes | None = None,
    suite: Suite = CHACHAPOLY_SHA256,
) -> HandshakeState:
    return HandshakeState(
        pattern, initiator=False, prologue=prologue, s=BOB, e=b"2" * 32, psk=psk, suite=suite
    )


class CountingSuite:
    """Counts key exchanges and records every (key, nonce) that something was sealed under."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.sealed: list[tuple[bytes, bytes]] = []
        self.suite = dataclasses.replace(CHACHAPOLY_SHA256, dh=self._dh, aead=self._aead)

    def _dh(self, pair: KeyPair, public: bytes) -> bytes:
        self.exchanges += 1
        return pair.exchange(public)

    def _aead(self, key: bytes) -> RecordingAead:
        return RecordingAead(key, self.sealed)


class RecordingAead:
    def __init__(self, key: bytes, sealed: list[tuple[bytes, bytes]]) -> None:
        self._key, self._sealed, self._aead = key, sealed, ChaCha20Poly1305(key)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        self._sealed.append((self._key, nonce))
        return self._aead.encrypt(nonce, data, associated_data)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        return self._aead.decrypt(nonce, data, associated_data)


@pytest.mark.parametrize(("pattern", "psk"), [(IK, None), (IKpsk2, PSK)])
def test_both_sides_agree(pattern: Pattern, psk: bytes | None) -> None:
    one, two = initiator(pattern, psk=psk), responder(pattern, psk=psk)
    message = one.write_message(b"hello")
    assert len(message) == 32 + 48 + 5 + 16
    assert two.read_message_untrusted(message) == b"hello"
    assert two.remote_static == ALICE.public.x25519
    answer = two.write_message(b"welcome")
    assert len(answer) == 32 + 7 + 16
    assert one.read_message_untrusted(answer) == b"welcome"
    assert one.handshake_hash == two.handshake_hash
    assert one.split() == two.split()
    first, second = one.split()
    assert len(first) == len(second) == 32
    assert first != second


def test_ephemeral_key_may_come_with_the_message() -> None:
    one = HandshakeState(IK, initiator=True, prologue=PROLOGUE, s=ALICE, rs=BOB.public.x25519)
    assert one.write_message(b"", b"1" * 32) == initiator().write_message(b"")


def test_H13_responder_learns_the_caller_after_one_exchange() -> None:
    counting = CountingSuite()
    two = responder(suite=counting.suite)
    two.read_start_untrusted(initiator().write_message(b"hello"), until="s")
    assert two.remote_static == ALICE.public.x25519
    assert counting.exchanges == 1
    assert two.read_finish_untrusted() == b"hello"
    assert counting.exchanges == 2


def test_H13_garbage_costs_one_exchange() -> None:
    message = bytearray(initiator().write_message(b"hello"))
    message[40] ^= 1
    counting = CountingSuite()
    with pytest.raises(BadPacket):
        responder(suite=counting.suite).read_message_untrusted(bytes(message))
    assert counting.exchanges == 1


def test_reading_in_two_steps_is_reading_in_one() -> None:
    message = initiator().write_message(b"hello")
    whole, stepwise = responder(), responder()
    whole.read_message_untrusted(message)
    stepwise.read_start_untrusted(message, until="e")
    assert stepwise.read_finish_untrusted() == b"hello"
    assert stepwise.write_message(b"") == whole.write_message(b"")


def test_P8_every_flipped_bit_of_both_messages_is_noticed() -> None:
    one, two = initiator(), responder()
    message = one.write_message(b"hello")
    assert two.copy().read_message_untrusted(message) == b"hello"
    for bit in range(len(message) * 8):
        forged = bytearray(message)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadPacket):
            two.copy().read_message_untrusted(bytes(forged))
    two.read_message_untrusted(message)
    answer = two.write_message(b"hi")
    for bit in range(len(answer) * 8):
        forged = bytearray(answer)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadPacket):
            one.copy().read_message_untrusted(bytes(forged))
    assert one.read_message_untrusted(answer) == b"hi"


def test_P2_every_other_length_of_both_messages_is_noticed() -> None:
    one, two = initiator(), responder()
    message = one.write_message(b"")
    for size in range(len(message) + 40):
        if size != len(message):
            with pytest.raises(BadPacket):
                two.copy().read_message_untrusted((message + bytes(40))[:size])
    two.read_message_untrusted(message)
    answer = two.write_message(b"")
    for size in range(len(answer) + 40):
        if size != len(answer):
            with pytest.raises(BadPacket):
                one.copy().read_message_untrusted((answer + bytes(40))[:size])


def test_P2_a_short_message_without_a_key_exchange_is_noticed() -> None:
    two = HandshakeState(NN, initiator=False, prologue=b"", e=b"2" * 32)
    for size in range(32):
        with pytest.raises(BadPacket, match="too short"):
            two.copy().read_message_untrusted(bytes([9] * size))


@given(st.binary(max_size=200), st.booleans())
def test_P9_any_bytes_are_a_bad_packet(data: bytes, answering: bool) -> None:
    if answering:
        state = initiator()
        state.write_message(b"")
    else:
        state = responder()
    with pytest.raises(BadPacket):
        state.read_message_untrusted(data)


def test_P3_messages_beyond_the_limit_of_noise_are_refused() -> None:
    with pytest.raises(BadPacket, match="too long"):
        responder().read_message_untrusted(bytes(65536))
    with pytest.raises(UsageError, match="65535"):
        initiator().write_message(bytes(65536 - 32 - 48 - 16))
    message = initiator().write_message(bytes(65535 - 32 - 48 - 16))
    assert len(message) == 65535
    assert len(responder().read_message_untrusted(message)) == 65535 - 32 - 48 - 16


@pytest.mark.parametrize("prologue", [b"", PROLOGUE + b"x", PROLOGUE[:-1], PROLOGUE.upper()])
def test_H5_another_prologue_is_noticed(prologue: bytes) -> None:
    with pytest.raises(BadPacket):
        responder(prologue=prologue).read_message_untrusted(initiator().write_message(b""))


def test_H14_another_psk_is_noticed_by_the_initiator() -> None:
    # psk2 goes in at the end of the second message, so the responder cannot see it in the first.
    one, two = initiator(IKpsk2, psk=PSK), responder(IKpsk2, psk=b"q" * 32)
    two.read_message_untrusted(one.write_message(b""))
    with pytest.raises(BadPacket):
        one.read_message_untrusted(two.write_message(b""))
    assert one.handshake_hash != two.handshake_hash


def test_H14_suites_with_and_without_psk_do_not_meet() -> None:
    with pytest.raises(BadPacket):
        responder(IKpsk2, psk=PSK).read_message_untrusted(initiator().write_message(b""))
    with pytest.raises(BadPacket):
        responder().read_message_untrusted(initiator(IKpsk2, psk=PSK).write_message(b""))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_H14_psks_of_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"32 bytes, and this has {size}"):
        responder(IKpsk2, psk=bytes(size))


def test_H14_a_psk_too_few_or_too_many_is_refused() -> None:
    with pytest.raises(UsageError, match="IKpsk2 needs a pre-shared key"):
        responder(IKpsk2)
    with pytest.raises(UsageError, match="IK has no pre-shared key"):
        responder(IK, psk=PSK)


def test_H3_forged_answers_spoil_copies_only() -> None:
    one, two = initiator(), responder()
    two.read_message_untrusted(one.write_message(b""))
    answer = two.write_message(b"genuine")
    for _ in range(5):
        with pytest.raises(BadPacket):
            one.copy().read_message_untrusted(answer[:32] + bytes(len(answer) - 32))
        with pytest.raises(BadPacket):
            one.copy().read_message_untrusted(X25519KeyPair(b"m" * 32).dh_public + answer[32:])
    reader = one.copy()
    assert reader.read_message_untrusted(answer) == b"genuine"
    assert reader.split() == two.split()
    assert not one.finished


def test_copies_are_independent_at_every_stage() -> None:
    one, two = initiator(), responder()
    message = one.write_message(b"")
    two.read_start_untrusted(message, until="s")
    twin = two.copy()
    two.read_finish_untrusted()
    twin.read_finish_untrusted()
    assert two.write_message(b"x") == twin.write_message(b"x")
    symmetric = SymmetricState(CHACHAPOLY_SHA256, b"name")
    symmetric.mix_key(b"material")
    other = symmetric.copy()
    assert symmetric.encrypt_and_hash(b"x") == other.encrypt_and_hash(b"x")
    assert symmetric.encrypt_and_hash(b"x") == other.encrypt_and_hash(b"x")
    other.mix_hash(b"more")
    assert symmetric.h != other.h


def test_H4_messages_of_another_handshake_are_refused() -> None:
    one, two, third = initiator(), responder(), responder()
    message = one.write_message(b"")
    two.read_message_untrusted(message)
    third.read_message_untrusted(initiator(prologue=PROLOGUE).write_message(b"other payload"))
    with pytest.raises(BadPacket):
        one.copy().read_message_untrusted(third.write_message(b"hi"))
    with pytest.raises(BadPacket):
        one.copy().read_message_untrusted(message)
    with pytest.raises(BadPacket):
        responder().read_message_untrusted(two.write_message(b"hi"))


@pytest.mark.parametrize("n", [0, 1])
def test_H8_ephemeral_keys_of_order_one_and_two_are_refused(n: int) -> None:
    low = n.to_bytes(32, "little")
    with pytest.raises(BadPacket, match="small order"):
        responder().read_message_untrusted(low + bytes(64))
    one = initiator()
    one.write_message(b"")
    with pytest.raises(BadPacket, match="small order"):
        one.read_message_untrusted(low + bytes(16))


def test_H8_a_static_key_of_small_order_is_refused() -> None:
    class Dishonest:
        """Claims the zero key, and seals as if it had agreed on something with it."""

        dh_public = bytes(32)

        def exchange(self, peer: bytes) -> bytes:
            return bytes(32)

    one = HandshakeState(IK, initiator=True, prologue=PROLOGUE, s=Dishonest(), rs=BOB.public.x25519)
    with pytest.raises(BadPacket, match="small order"):
        responder().read_message_untrusted(one.write_message(b"", b"1" * 32))


def test_H8_patterns_without_a_static_key_refuse_when_they_answer() -> None:
    two = HandshakeState(NN, initiator=False, prologue=b"", e=b"2" * 32)
    two.read_message_untrusted(bytes(32))
    with pytest.raises(BadPacket, match="small order"):
        two.write_message(b"")


def test_H19_no_key_and_nonce_seal_twice() -> None:
    counting = CountingSuite()
    for number in range(20):
        one = HandshakeState(
            IK, initiator=True, prologue=PROLOGUE, s=ALICE, rs=BOB.public.x25519, suite=counting.suite
        )
        two = responder(suite=counting.suite)
        two.read_message_untrusted(one.write_message(b"hello", bytes([number]) * 32))
        one.read_message_untrusted(two.write_message(b"welcome", bytes([100 + number]) * 32))
    assert len(counting.sealed) == 20 * 3
    assert len(set(counting.sealed)) == len(counting.sealed)


def test_H19_a_broken_random_source_is_seen_in_the_record() -> None:
    counting = CountingSuite()
    for payload in (b"one", b"two"):
        one = HandshakeState(
            IK, initiator=True, prologue=PROLOGUE, s=ALICE, rs=BOB.public.x25519, suite=counting.suite
        )
        one.write_message(payload, b"1" * 32)
    assert len(set(counting.sealed)) < len(counting.sealed)


def test_H18_a_key_without_nonces_left_is_not_used() -> None:
    last = CipherState(CHACHAPOLY_SHA256, bytes(32), n=2**64 - 2)
    sealed = last.encrypt_with_ad(b"", b"x")
    with pytest.raises(UsageError, match="begin a new handshake"):
        last.encrypt_with_ad(b"", b"x")
    reader = CipherState(CHACHAPOLY_SHA256, bytes(32), n=2**64 - 2)
    assert reader.decrypt_with_ad_untrusted(b"", sealed) == b"x"
    with pytest.raises(UsageError, match="begin a new handshake"):
        reader.decrypt_with_ad_untrusted(b"", sealed)


def test_cipher_counts_what_verifies_only() -> None:
    writer, reader = (CipherState(CHACHAPOLY_SHA256, bytes(32)) for _ in range(2))
    sealed = [writer.encrypt_with_ad(b"ad", b"same") for _ in range(3)]
    assert len(set(sealed)) == 3
    for packet in sealed:
        for forged in (packet[:-1], packet[:15], b"", bytes(len(packet))):
            with pytest.raises(BadPacket):
                reader.decrypt_with_ad_untrusted(b"ad", forged)
        with pytest.raises(BadPacket):
            reader.copy().decrypt_with_ad_untrusted(b"da", packet)
        assert reader.decrypt_with_ad_untrusted(b"ad", packet) == b"same"


def test_cipher_without_a_key_passes_data_through() -> None:
    cipher = CipherState(CHACHAPOLY_SHA256)
    assert not cipher.has_key()
    assert cipher.encrypt_with_ad(b"ad", b"data") == b"data"
    assert cipher.decrypt_with_ad_untrusted(b"ad", b"data") == b"data"


def test_calls_out_of_turn_are_refused() -> None:
    one, two = initiator(), responder()
    with pytest.raises(UsageError, match="cannot read"):
        one.read_message_untrusted(b"")
    with pytest.raises(UsageError, match="cannot write"):
        two.write_message(b"")
    with pytest.raises(UsageError, match="read_start_untrusted first"):
        two.read_finish_untrusted()
    with pytest.raises(UsageError, match="not finished"):
        one.split()
    message = one.write_message(b"")
    with pytest.raises(UsageError, match="cannot write"):
        one.write_message(b"")
    two.read_start_untrusted(message, until="s")
    with pytest.raises(UsageError, match="cannot write"):
        two.write_message(b"")
    two.read_finish_untrusted()
    with pytest.raises(UsageError, match="cannot read"):
        two.read_message_untrusted(message)
    with pytest.raises(UsageError, match="not finished"):
        two.split()
    one.read_message_untrusted(two.write_message(b""))
    for state in (one, two):
        assert state.finished
        with pytest.raises(UsageError, match="cannot write"):
            state.write_message(b"")
        with pytest.raises(UsageError, match="cannot read"):
            state.read_message_untrusted(b"")


def test_tokens_that_a_message_lacks_are_refused() -> None:
    with pytest.raises(UsageError, match="IK has no 'ee'"):
        responder().read_start_untrusted(initiator().write_message(b""), until="ee")


def test_a_state_that_met_a_bad_packet_is_dead() -> None:
    two, message = responder(), initiator().write_message(b"")
    with pytest.raises(BadPacket):
        two.read_message_untrusted(message[:-1] + bytes(1))
    with pytest.raises(UsageError, match="cannot read"):
        two.read_message_untrusted(message)
    with pytest.raises(UsageError, match="not finished"):
        two.split()


def test_missing_keys_are_named() -> None:
    with pytest.raises(UsageError, match="needs the peer's static key"):
        HandshakeState(IK, initiator=True, prologue=b"", s=ALICE)
    with pytest.raises(UsageError, match="needs a static key"):
        HandshakeState(IK, initiator=False, prologue=b"")
    with pytest.raises(UsageError, match="needs a static key"):
        HandshakeState(IK, initiator=True, prologue=b"", rs=BOB.dh_public).write_message(b"", b"1" * 32)
    with pytest.raises(UsageError, match="needs an ephemeral key"):
        HandshakeState(IK, initiator=True, prologue=b"", s=ALICE, rs=BOB.dh_public).write_message(b"")


@pytest.mark.parametrize("copier", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "state",
    [
        responder(),
        X25519KeyPair(b"1" * 32),
        CipherState(CHACHAPOLY_SHA256),
        SymmetricState(CHACHAPOLY_SHA256, b"x"),
    ],
    ids=lambda state: type(state).__name__,
)
def test_L2_states_are_not_pickled(state: object, copier: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        copier(state)


def test_L2_no_secret_in_text() -> None:
    private = bytes(range(32))
    states: list[object] = [
        X25519KeyPair(private),
        CipherState(CHACHAPOLY_SHA256, private),
        HandshakeState(IKpsk2, initiator=False, prologue=b"", s=BOB, e=private, psk=private),
    ]
    for state in states:
        for text in (str(state), repr(state)):
            assert private.hex() not in text
            assert repr(private)[2:-1] not in text
        with pytest.raises(TypeError):
            vars(state)
