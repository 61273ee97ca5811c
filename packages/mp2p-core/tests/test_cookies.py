"""mac1, mac2 and the COOKIE (protocol section 4; rows F4, F5)."""

from __future__ import annotations

import hashlib
import random

import pytest

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.addresses import pack_ipv4, pack_ipv6
from mp2p_core.proto.cookies import CookieJar, keyed_hash, mac1_for, open_cookie_untrusted
from mp2p_core.transport import Address

R = b"R" * 32
SOURCE = pack_ipv4("192.0.2.7", 40000)
GROUP = pack_ipv4("224.0.230.7", 1024)
LIFE = c.COOKIE_SECRET_LIFE


def jar_at(now: float) -> CookieJar:
    return CookieJar(R, random.Random(1).randbytes, now)


def init_with(hint: Address | None = None, filler: int = 7) -> bytes:
    body = wire.init_header(b"initiate", hint) + bytes([filler]) * 192
    return body + mac1_for(R)(body) + bytes(16)


def answered(jar: CookieJar, init: bytes, source: Address, now: float) -> bytes:
    """Ask for a cookie, as the initiator does, and put the mac2 on the INIT."""
    header = wire.init_fields(init)
    cookie = open_cookie_untrusted(
        wire.parse_cookie_untrusted(jar.seal(init, header, source, now)), R, init[wire.INIT_MAC1]
    )
    return init[:240] + keyed_hash(cookie, init[:240], 16)


def accepted(jar: CookieJar, init: bytes, source: Address, now: float) -> bool:
    return jar.accepts(init, wire.init_fields(init), source, now)


def test_mac1_to_the_letter_of_the_protocol() -> None:
    key = hashlib.blake2s(b"mp2p-v1 mac1\0" + R).digest()
    for data in (b"", b"x" * 64, b"y" * 224):
        assert mac1_for(R)(data) == hashlib.blake2s(data, key=key, digest_size=16).digest()


def test_cookie_to_the_letter_of_the_protocol() -> None:
    """An independent reading of the two lines in section 4."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    source, secret = random.Random(1), random.Random(1).randbytes(32)
    jar, init = CookieJar(R, source.randbytes, 0.0), init_with(GROUP)
    cookie = jar.seal(init, wire.init_fields(init), SOURCE, 1.0)
    assert (cookie[:4], cookie[4:12]) == (b"\x13\0\0\0", b"initiate")
    ck = hashlib.blake2s(b"mp2p-v1 cookie\0" + R).digest()
    key = hashlib.blake2s(cookie[12:28], key=ck).digest()
    opened = ChaCha20Poly1305(key).decrypt(bytes(12), cookie[28:], init[224:240])
    bound = SOURCE[4:20] + SOURCE[2:4] + GROUP
    assert opened == hashlib.blake2s(bound, key=secret, digest_size=16).digest()


def test_F4_a_cookie_proves_the_place_it_was_sent_to() -> None:
    jar = jar_at(0.0)
    good = answered(jar, init_with(), SOURCE, 1.0)
    assert accepted(jar, good, SOURCE, 2.0)
    for other in (
        pack_ipv4("192.0.2.8", 40000), pack_ipv4("192.0.2.7", 40001), pack_ipv6("2001:db8::1", 40000), GROUP
    ):  # fmt: skip
        assert not accepted(jar, good, other, 2.0)


def test_F4_a_cookie_proves_its_hint() -> None:
    jar = jar_at(0.0)
    plain, hinted = answered(jar, init_with(), SOURCE, 1.0), answered(jar, init_with(GROUP), SOURCE, 1.0)
    assert accepted(jar, hinted, SOURCE, 2.0)
    cookie = open_cookie_untrusted(
        wire.parse_cookie_untrusted(jar.seal(plain, wire.init_fields(plain), SOURCE, 1.0)), R, plain[224:240]
    )
    crossed = hinted[:240] + keyed_hash(cookie, hinted[:240], 16)
    assert not accepted(jar, crossed, SOURCE, 2.0)


def test_F4_no_mac2_and_an_edited_one_are_refused() -> None:
    jar = jar_at(0.0)
    good = answered(jar, init_with(), SOURCE, 1.0)
    assert not accepted(jar, good[:240] + bytes(16), SOURCE, 2.0)
    for bit in range(128):
        at = 240 + bit // 8
        assert not accepted(jar, good[:at] + bytes([good[at] ^ 1 << bit % 8]) + good[at + 1 :], SOURCE, 2.0)


def test_F4_mac2_covers_the_whole_init() -> None:
    jar = jar_at(0.0)
    good = answered(jar, init_with(), SOURCE, 1.0)
    for at in range(240):
        if not 12 <= at < 32 and at != 2:  # those decide which cookie is asked for
            assert not accepted(jar, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], SOURCE, 2.0)


@pytest.mark.parametrize(
    ("made", "used", "good"),
    [
        (1, 2, True),
        (1, LIFE - 1, True),
        (1, LIFE + 1, True),
        (1, 2 * LIFE - 1, True),
        (1, 2 * LIFE + 1, False),
        (1, 3 * LIFE, False),
        (LIFE - 1, 2 * LIFE - 1, True),
        (LIFE - 1, 2 * LIFE + 1, False),
        (1, 10 * LIFE, False),
    ],
)
@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
def test_F4_a_cookie_lasts_its_period_and_the_next(made: float, used: float, good: bool, busy: bool) -> None:
    """Whether or not anything was asked in between."""
    jar = jar_at(0.0)
    init = answered(jar, init_with(), SOURCE, made)
    if busy:
        for moment in range(int(made), int(used), 30):
            accepted(jar, init, SOURCE, moment)
    assert accepted(jar, init, SOURCE, used) == good


def test_F4_a_quiet_time_does_not_stretch_the_periods() -> None:
    jar = jar_at(0.0)
    init = answered(jar, init_with(), SOURCE, 1.0)
    assert accepted(jar, init, SOURCE, 1.9 * LIFE), "noticed late, in the middle of the second period"
    assert not accepted(jar, init, SOURCE, 2.1 * LIFE)


def test_F5_a_cookie_opens_only_with_the_mac1_it_answers() -> None:
    jar, init = jar_at(0.0), init_with()
    header = wire.parse_cookie_untrusted(jar.seal(init, wire.init_fields(init), SOURCE, 1.0))
    open_cookie_untrusted(header, R, init[224:240])
    for receiver, mac1 in ((R, init_with(filler=8)[224:240]), (b"Q" * 32, init[224:240])):
        with pytest.raises(BadPacket, match="cookie-forged"):
            open_cookie_untrusted(header, receiver, mac1)


def test_P8_every_bit_of_a_cookie_counts() -> None:
    jar, init = jar_at(0.0), init_with()
    cookie = jar.seal(init, wire.init_fields(init), SOURCE, 1.0)
    for bit in range(8 * len(cookie)):
        edited = bytearray(cookie)
        edited[bit // 8] ^= 1 << bit % 8
        if 4 <= bit // 8 < 12:
            continue  # the receive id: it finds another handshake, or none
        with pytest.raises(BadPacket):
            open_cookie_untrusted(wire.parse_cookie_untrusted(bytes(edited)), R, init[224:240])


def test_cookies_do_not_repeat_a_nonce() -> None:
    jar, init = jar_at(0.0), init_with()
    nonces = {jar.seal(init, wire.init_fields(init), SOURCE, 1.0)[12:28] for _ in range(100)}
    assert len(nonces) == 100
