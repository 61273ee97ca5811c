"""Sessions of the classic profile: one key both ways, and what keeps texts from coming twice (row Y9)."""

from __future__ import annotations

import itertools
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.classic import ClassicIdentity, ClassicSession, ClassicSessionData, parse_message
from mp2p_core.classic.nonces import NonceMemory
from mp2p_core.classic.session import agree_untrusted
from mp2p_core.errors import BadPacket, Closed, DatagramTooLarge
from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.transport import Path

PEER = ClassicIdentity(bytes(32)).public
PATH = Path(pack_ipv4("224.0.230.7", 1025))
KEY = bytes(range(32))
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


def session(limit: int = 1000) -> ClassicSession:
    return ClassicSession(PEER, bytes(16), KEY, PATH, max_datagram_size=1472, limit=limit)


def read(datagram: bytes) -> ClassicSessionData:
    message = parse_message(datagram)
    assert isinstance(message, ClassicSessionData)
    return message


def test_texts_go_both_ways_under_one_key() -> None:
    one, other = session(), session()
    assert other.open_untrusted(read(one.seal(b"there", os.urandom))) == b"there"
    assert one.open_untrusted(read(other.seal(b"back", os.urandom))) == b"back"
    assert other.open_untrusted(read(one.seal(b"", os.urandom))) == b""


def test_Y9_a_reflected_message_is_refused() -> None:
    one = session()
    sealed = read(one.seal(b"open the gate", os.urandom))
    assert sealed.decrypt(KEY) == b"open the gate", "the key alone would take it"
    with pytest.raises(BadPacket, match="classic-data-repeated"):
        one.open_untrusted(sealed)


def test_Y9_a_repeated_nonce_is_refused() -> None:
    one, other = session(), session()
    sealed = [read(one.seal(b"%d" % n, os.urandom)) for n in range(200)]
    for n, message in enumerate(sealed):
        assert other.open_untrusted(message) == b"%d" % n
    for message in (*sealed, *reversed(sealed)):
        with pytest.raises(BadPacket, match="classic-data-repeated"):
            other.open_untrusted(message)
    again = ClassicSessionData.encrypt(bytes(16), KEY, sealed[0].nonce, b"another text")
    with pytest.raises(BadPacket, match="classic-data-repeated"):
        other.open_untrusted(again)


def test_Y9_a_forged_message_does_not_use_up_its_nonce() -> None:
    one, other = session(), session()
    genuine = read(one.seal(b"genuine", os.urandom))
    forged = ClassicSessionData(genuine.session_id, genuine.nonce, genuine.sealed[:-1] + b"\0")
    with pytest.raises(BadPacket, match="classic-data-forged"):
        other.open_untrusted(forged)
    assert other.open_untrusted(genuine) == b"genuine"


def test_H19_a_broken_random_source_ends_the_session() -> None:
    one = session()
    one.seal(b"first", bytes)
    with pytest.raises(Closed, match="random numbers of this machine"):
        one.seal(b"second", bytes)
    with pytest.raises(Closed):
        one.seal(b"third", os.urandom)
    with pytest.raises(BadPacket, match="classic-data-ended"):
        one.open_untrusted(ClassicSessionData.encrypt(bytes(16), KEY, b"n" * 12, b"late"))


def test_a_key_is_used_no_oftener_than_is_remembered() -> None:
    one, other = session(limit=4), session()
    for _ in range(2):
        one.seal(b"x", os.urandom)
        one.open_untrusted(read(other.seal(b"y", os.urandom)))
    assert one.messages == 4
    with pytest.raises(BadPacket, match="classic-data-ended"):
        one.open_untrusted(read(other.seal(b"y", os.urandom)))
    with pytest.raises(Closed, match="begin a new session"):
        one.seal(b"x", os.urandom)


@pytest.mark.parametrize(("size", "fits"), [(1472, 1427), (1452, 1407), (9000, 1455)])
def test_a_text_fits_one_datagram_and_the_original_s_buffer(size: int, fits: int) -> None:
    one = ClassicSession(PEER, bytes(16), KEY, PATH, max_datagram_size=size)
    assert one.max_size == fits
    assert len(one.seal(bytes(fits), os.urandom)) == min(size, 1500)
    with pytest.raises(DatagramTooLarge):
        one.seal(bytes(fits + 1), os.urandom)


@pytest.mark.parametrize("public", LOW_ORDER, ids=lambda raw: raw[::-1].hex()[:8])
def test_H8_an_exchange_that_gives_zero_is_refused(public: bytes) -> None:
    with pytest.raises(BadPacket, match="classic-exchange-zero"):
        agree_untrusted(X25519PrivateKey.generate(), public)


@given(st.lists(st.binary(min_size=12, max_size=12)))
def test_the_memory_is_a_set(nonces: list[bytes]) -> None:
    memory, model = NonceMemory(), set[bytes]()
    for nonce in nonces:
        assert (nonce in memory) == (nonce in model)
        if nonce not in memory:
            memory.add(nonce)
            model.add(nonce)
    assert len(memory) == len(model)


def test_the_memory_grows_without_losing_one() -> None:
    nonces = [number.to_bytes(12) for number in range(0, 40_000, 2)]
    memory = NonceMemory()
    for number, nonce in enumerate(nonces):
        memory.add(nonce)
        if number % 5000 == 0:
            assert all(earlier in memory for earlier in nonces[: number + 1])
    assert len(memory) == len(nonces)
    assert all(nonce in memory for nonce in nonces)
    assert not any(number.to_bytes(12) in memory for number in range(1, 40_000, 2))


def test_the_memory_is_not_misled_by_the_seams_between_nonces() -> None:
    """Of bytes a and b alone every nonce is a part of two neighbours sooner or later."""
    nonces = [bytes(each) * 4 for each in itertools.product(b"ab", repeat=3)]
    nonces += [bytes(each) for each in itertools.islice(itertools.product(b"ab", repeat=12), 0, 4096, 3)]
    memory, model = NonceMemory(), set[bytes]()
    for nonce in nonces:
        assert (nonce in memory) == (nonce in model)
        if nonce not in model:
            memory.add(nonce)
            model.add(nonce)
    others = [bytes(each) for each in itertools.islice(itertools.product(b"ab", repeat=12), 1, 4096, 3)]
    assert [nonce for nonce in others if (nonce in memory) != (nonce in model)] == []
