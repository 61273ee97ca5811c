"""Identities, and that their secret shows nowhere (row L2)."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import pickle
import traceback
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadKey, BadPacket
from mp2p_core.proto.identity import Identity, PublicKey

SEED = bytes(range(100, 132))
SMALL_ORDER = (1).to_bytes(32, "little")


def secret_forms(seed: bytes) -> list[str]:
    """Every form in which a secret, or the scalar that it stands for, might be printed."""
    digest = hashlib.sha512(seed).digest()
    forms = []
    for secret in (seed, digest[:32], digest):
        forms += [secret.hex(), base64.b64encode(secret).decode().rstrip("="), repr(secret)[2:-1]]
        forms += [base64.b32encode(secret).decode().rstrip("="), str(int.from_bytes(secret, "little"))]
    return forms


def assert_hidden(seed: bytes, output: str) -> None:
    for form in secret_forms(seed):
        assert form.lower() not in output.lower()


def test_public_key_is_the_one_of_ed25519() -> None:
    identity = Identity.from_seed(SEED)
    assert identity.public.raw == Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
    assert identity.seed() == SEED


def test_x25519_key_is_the_same_scalar_on_the_other_curve() -> None:
    identity = Identity.from_seed(SEED)
    scalar = X25519PrivateKey.from_private_bytes(hashlib.sha512(SEED).digest()[:32])
    assert identity.public.x25519 == identity.dh_public == scalar.public_key().public_bytes_raw()
    peer = X25519PrivateKey.from_private_bytes(b"p" * 32)
    theirs = peer.exchange(X25519PublicKey.from_public_bytes(identity.dh_public))
    assert identity.exchange(peer.public_key().public_bytes_raw()) == theirs


def test_two_identities_share_a_secret() -> None:
    one, two = Identity.from_seed(b"1" * 32), Identity.from_seed(b"2" * 32)
    assert one.exchange(two.public.x25519) == two.exchange(one.public.x25519)


def test_generate_takes_its_seed_from_the_source_given() -> None:
    asked = []

    def source(size: int) -> bytes:
        asked.append(size)
        return SEED[:size]

    assert Identity.generate(source).seed() == SEED
    assert asked == [32]
    assert Identity.generate().public != Identity.generate().public


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_K2_seeds_of_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(BadKey, match=f"has 32 bytes, and this has {size}") as caught:
        Identity.from_seed((SEED * 2)[:size])
    assert "from_seed" in str(traceback.format_exception(caught.value))


@pytest.mark.parametrize("public", [bytes(32), SMALL_ORDER, b"", bytes(31), bytes(33)], ids=bytes.hex)
def test_H8_exchange_with_an_unusable_key_is_refused(public: bytes) -> None:
    with pytest.raises(BadKey, match="no secret can be shared"):
        Identity.from_seed(SEED).exchange(public)


def test_text_forms_round_trip() -> None:
    key = Identity.from_seed(SEED).public
    text = str(key)
    assert len(text) == 52
    assert text == text.lower()
    assert PublicKey.parse(text) == key
    assert PublicKey.parse(key.raw.hex()) == key
    assert PublicKey.parse(key.raw.hex().upper()) == key
    assert repr(key) == f"PublicKey.parse('{text}')"


def wrong_texts() -> list[str]:
    text, digits = str(Identity.from_seed(SEED).public), Identity.from_seed(SEED).public.raw.hex()
    return [
        "", text[:-1], text + "a", text.upper(), text + "====", " " + text, text + "\n", "1" + text[1:],
        digits[:-1], digits + "0", "0x" + digits[2:], digits[:62] + " 0", digits + "\n",
        "\u0661" * 64, "\uff41" * 52,
    ]  # fmt: skip


@pytest.mark.parametrize("text", wrong_texts(), ids=ascii)
def test_other_texts_are_refused_with_the_form_expected(text: str) -> None:
    with pytest.raises(
        BadKey, match=r"52 characters of lower-case base32 \(a to z, 2 to 7\) or 64 hex digits"
    ):
        PublicKey.parse(text)


def test_bits_beyond_the_key_are_refused() -> None:
    text = str(Identity.from_seed(SEED).public)
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    # The last character carries one bit of the key and four that must be zero.
    for extra in range(1, 16):
        with pytest.raises(BadKey, match="not a canonical public key"):
            PublicKey.parse(text[:-1] + alphabet[alphabet.index(text[-1]) + extra])


def test_K4_unusable_keys_are_refused_in_every_way_in() -> None:
    text = base64.b32encode(SMALL_ORDER).decode().rstrip("=").lower()
    ways: list[Callable[[], PublicKey]] = [
        lambda: PublicKey(SMALL_ORDER),
        lambda: PublicKey.parse(text),
        lambda: PublicKey.parse(SMALL_ORDER.hex()),
    ]
    for make in ways:
        for _ in range(2):  # a refusal is not remembered as a success
            with pytest.raises(BadKey, match="small order"):
                make()


@given(st.binary(max_size=34))
def test_K4_a_strangers_key_is_read_or_a_bad_packet(data: bytes) -> None:
    try:
        key = PublicKey.read_untrusted(data)
    except BadPacket:
        with pytest.raises(BadKey):
            PublicKey(data)
    else:
        assert key.raw == data


def test_keys_are_equal_when_their_bytes_are() -> None:
    key = Identity.from_seed(SEED).public
    negative = PublicKey(key.raw[:31] + bytes([key.raw[31] ^ 0x80]))
    assert key == PublicKey(key.raw)
    assert hash(key) == hash(PublicKey(key.raw))
    assert negative.x25519 == key.x25519
    assert negative != key
    assert len({key, PublicKey(key.raw), negative}) == 2
    assert pickle.loads(pickle.dumps(key)) == key


def test_keys_cannot_change() -> None:
    source = bytearray(Identity.from_seed(SEED).public.raw)
    key = PublicKey(source)  # type: ignore[arg-type]  # callers without a type checker do this
    source[0] ^= 1
    assert key == Identity.from_seed(SEED).public
    with pytest.raises(dataclasses.FrozenInstanceError):
        key.raw = bytes(32)  # type: ignore[misc]  # the point of the test


def test_L2_no_secret_in_text_or_attributes() -> None:
    identity = Identity.from_seed(SEED)
    shown = f"{identity} {identity!r} {identity.public!r} {[identity]}"
    assert str(identity.public) in repr(identity)
    assert_hidden(SEED, shown)
    with pytest.raises(TypeError):
        vars(identity)


@pytest.mark.parametrize("copier", [pickle.dumps, copy.copy, copy.deepcopy])
def test_L2_identities_are_not_pickled_or_copied(copier: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="cannot be pickled or copied") as caught:
        copier(Identity.from_seed(SEED))
    assert_hidden(SEED, str(caught.value))


def test_L2_no_secret_in_reports_with_local_variables() -> None:
    def fail() -> None:
        identity = Identity.from_seed(SEED)
        identity.exchange(SMALL_ORDER)

    with pytest.raises(BadKey) as caught:
        fail()
    report = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "<Identity " in report  # local variables were captured
    assert_hidden(SEED, report)


def test_L2_a_secret_passed_by_mistake_is_not_shown() -> None:
    with pytest.raises(BadKey) as caught:
        Identity(SEED[:31])
    frame = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack[-1]
    assert frame.name == "__init__"
    assert frame.locals is not None
    assert_hidden(SEED[:31], " ".join([str(caught.value), *frame.locals.values()]))
