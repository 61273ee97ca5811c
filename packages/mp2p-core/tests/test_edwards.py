"""The key check against plain curve arithmetic (row K4), and the numbers that its proof rests on."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadKey
from mp2p_core.proto.edwards import check_public_key, fits_identity
from mp2p_core.proto.identity import Identity

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
TWIST_PRIME = (2 * P + 2 - 8 * L) // 4


class Point(NamedTuple):
    """A point of edwards25519, affine: slow, and easy to check against RFC 8032."""

    x: int
    y: int

    def __add__(self, other: object) -> Point:
        assert isinstance(other, Point)
        t = D * self.x * other.x * self.y * other.y
        x = (self.x * other.y + other.x * self.y) * pow(1 + t, -1, P)
        y = (self.y * other.y + self.x * other.x) * pow(1 - t, -1, P)
        return Point(x % P, y % P)

    def times(self, scalar: int) -> Point:
        result, power = NEUTRAL, self
        while scalar:
            if scalar & 1:
                result += power
            power += power
            scalar >>= 1
        return result

    def encode(self) -> bytes:
        return (self.y | (self.x & 1) << 255).to_bytes(32, "little")


NEUTRAL = Point(0, 1)


def decode(key: bytes) -> Point | None:
    """Decode as RFC 8032, section 5.1.3 says, strictly."""
    number = int.from_bytes(key, "little")
    y, sign = number & (2**255 - 1), number >> 255
    if len(key) != 32 or y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    if root * root % P != square:
        root = root * pow(2, (P - 1) // 4, P) % P
    if root * root % P != square or (root == 0 and sign):
        return None
    return Point(root if root & 1 == sign else P - root, y)


def is_usable(key: bytes) -> bool:
    point = decode(key)
    return point is not None and point != NEUTRAL and point.times(L) == NEUTRAL


def some_points(count: int, seed: int = 0) -> list[Point]:
    """Points of any order, found by trying random encodings."""
    source, found = random.Random(seed), list[Point]()
    while len(found) < count:
        point = decode(source.randbytes(32))
        if point is not None:
            found.append(point)
    return found


def torsion() -> list[Point]:
    """The eight points of small order, the neutral element first."""
    for point in some_points(20):
        generator = point.times(L)
        if generator.times(4) != NEUTRAL:
            return [generator.times(n) for n in range(8)]
    raise AssertionError("no point of order 8 among 20: half of all points lead to one")


TORSION = torsion()
GENUINE = [Identity.from_seed(bytes([n]) * 32).public.raw for n in range(8)]


def is_accepted(key: bytes) -> bool:
    try:
        check_public_key(key)
    except BadKey:
        return False
    return True


def is_square(number: int) -> bool:
    return pow(number, (P - 1) // 2, P) == 1


def test_K4_proof_the_scalar_survives_clamping() -> None:
    scalar = 5 * L - 1
    assert scalar % 8 == 0
    assert scalar.bit_length() == 255


def test_K4_proof_only_points_of_order_l_are_fixed_on_the_curve() -> None:
    assert math.gcd(5 * L, 8 * L) == L
    assert math.gcd(5 * L - 2, 8 * L) == 1
    assert pow(2, L - 1, L) == 1
    assert TORSION[1].times(8) == NEUTRAL
    assert len(set(TORSION)) == 8


def test_K4_proof_no_point_of_the_twist_is_fixed() -> None:
    assert 2 * P + 2 - 8 * L == 4 * TWIST_PRIME
    assert pow(2, TWIST_PRIME - 1, TWIST_PRIME) == 1
    assert 2 * TWIST_PRIME < 5 * L - 2 < 5 * L < 3 * TWIST_PRIME
    assert math.gcd(5 * L, 4 * TWIST_PRIME) == 1
    assert math.gcd(5 * L - 2, 4 * TWIST_PRIME) == 1


def test_K4_proof_a_y_without_a_point_maps_to_the_twist() -> None:
    assert is_square(-486664)
    source = random.Random(1)
    for _ in range(50):
        y = source.randrange(2, P - 1)
        u = (1 + y) * pow(1 - y, -1, P) % P
        assert is_square(u**3 + 486662 * u * u + u) == (decode(y.to_bytes(32, "little")) is not None)


@pytest.mark.parametrize("key", GENUINE, ids=bytes.hex)
def test_K4_genuine_keys_pass(key: bytes) -> None:
    point = decode(key)
    assert point is not None
    assert check_public_key(key) == ((1 + point.y) * pow(1 - point.y, -1, P) % P).to_bytes(32, "little")


@pytest.mark.parametrize("key", GENUINE[:2], ids=bytes.hex)
def test_K4_the_negative_of_a_key_is_a_key_with_the_same_u(key: bytes) -> None:
    negative = key[:31] + bytes([key[31] ^ 0x80])
    assert is_usable(negative)
    assert check_public_key(negative) == check_public_key(key)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_K4_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(BadKey, match=rf"32 bytes, and this has {size}: copy the whole key"):
        check_public_key((GENUINE[0] * 2)[:size])


@pytest.mark.parametrize("point", TORSION, ids=lambda point: point.encode().hex())
def test_K4_all_eight_points_of_small_order_are_refused(point: Point) -> None:
    order = next(n for n in (1, 2, 4, 8) if point.times(n) == NEUTRAL)
    with pytest.raises(BadKey, match=rf"small order \({order}\)"):
        check_public_key(point.encode())


@pytest.mark.parametrize("y", [1, P - 1])
def test_K4_minus_zero_is_refused(y: int) -> None:
    with pytest.raises(BadKey, match="minus zero"):
        check_public_key((y | 1 << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", range(P, 2**255))
def test_K4_y_that_is_not_below_p_is_refused(y: int, sign: int) -> None:
    with pytest.raises(BadKey, match="y is not below 2\\^255 - 19"):
        check_public_key((y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("twist", TORSION[1:], ids=lambda point: point.encode().hex())
@pytest.mark.parametrize("key", GENUINE[:2], ids=bytes.hex)
def test_K4_a_key_mixed_with_small_order_is_refused(key: bytes, twist: Point) -> None:
    point = decode(key)
    assert point is not None
    with pytest.raises(BadKey, match="outside the prime-order subgroup"):
        check_public_key((point + twist).encode())


def test_K4_bytes_that_are_no_point_are_refused() -> None:
    refused = 0
    for y in range(2, 60):
        if decode(y.to_bytes(32, "little")) is None:
            refused += 1
            with pytest.raises(BadKey, match="no point of the curve"):
                check_public_key(y.to_bytes(32, "little"))
    assert refused > 10


def test_K4_agrees_with_plain_arithmetic_on_random_bytes() -> None:
    source, accepted = random.Random(2), 0
    for _ in range(150):
        key = source.randbytes(32)
        accepted += is_usable(key)
        assert is_accepted(key) == is_usable(key), key.hex()
    assert accepted > 3  # about one in sixteen


def test_K4_agrees_with_plain_arithmetic_on_each_coset() -> None:
    for point in some_points(5, seed=3):
        base = point.times(8)
        for shift in TORSION:
            key = (base + shift).encode()
            assert is_accepted(key) == is_usable(key) == (shift == NEUTRAL), key.hex()


@given(st.binary(min_size=31, max_size=33))
def test_K4_any_bytes_are_a_key_or_refused_with_a_reason(data: bytes) -> None:
    try:
        u = check_public_key(data)
    except BadKey:
        assert not is_usable(data)
    else:
        assert fits_identity(u, data)
        assert is_usable(data)


def test_H7_equation_holds_for_the_key_of_the_same_identity_only() -> None:
    identities = [Identity.from_seed(bytes([n]) * 32) for n in range(6)]
    for one in identities:
        for other in identities:
            assert fits_identity(one.dh_public, other.public.raw) == (one is other)


def test_H7_equation_refuses_values_written_otherwise() -> None:
    # The base point has u = 9, small enough to be written a second way.
    key = (4 * pow(5, -1, P) % P).to_bytes(32, "little")
    u = (9).to_bytes(32, "little")
    assert fits_identity(u, key)
    assert not fits_identity((9 + P).to_bytes(32, "little"), key)
    assert not fits_identity((9 | 1 << 255).to_bytes(32, "little"), key)
    # y = 2 and y = 2 + p are the same number modulo p.
    two = (3 * pow(-1, -1, P) % P).to_bytes(32, "little")
    assert fits_identity(two, (2).to_bytes(32, "little"))
    assert not fits_identity(two, (2 + P).to_bytes(32, "little"))


@pytest.mark.parametrize(("u_size", "key_size"), [(31, 32), (33, 32), (32, 31), (32, 33), (0, 0)])
def test_H7_equation_refuses_other_lengths(u_size: int, key_size: int) -> None:
    identity = Identity.from_seed(bytes(32))
    assert not fits_identity((identity.dh_public + b"\0")[:u_size], (identity.public.raw + b"\0")[:key_size])


def test_H7_equation_refuses_the_neutral_element() -> None:
    # y = 1 has no u, and u = 0 would satisfy an equation written as a product carelessly.
    assert not fits_identity(bytes(32), (1).to_bytes(32, "little"))


def test_oracle_agrees_with_cryptography() -> None:
    for n in range(3):
        key = Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32).public_key().public_bytes_raw()
        assert is_usable(key)
